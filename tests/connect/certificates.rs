//! Certificates of nobody's, for servers and their clients.

use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub(crate) struct Certified {
    pub(crate) certificate: String,
    pub(crate) key: String,
    serial: u64,
}

/// Somebody who signs.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What there is to say about a server's certificate, for the name `db.example`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    Expired,
    NotYetValid,
    /// Signed by itself, and by no authority.
    SelfSigned,
    /// The same, as `openssl req -x509` makes it: an authority besides.
    SelfSignedAuthority,
    ExpiredSelfSignedAuthority,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, by which others know it.
    pub(crate) fn certificate(&self) -> String {
        self.0.pem()
    }

    /// One for the server `db.example`.
    pub(crate) fn server(&self, flaw: Flaw) -> Certified {
        let mut params = named("a server", &["db.example"]);
        match flaw {
            Flaw::Expired | Flaw::ExpiredSelfSignedAuthority => params.not_after = date_time_ymd(2020, 1, 1),
            Flaw::NotYetValid => params.not_before = date_time_ymd(4000, 1, 1),
            Flaw::None | Flaw::SelfSigned | Flaw::SelfSignedAuthority => {}
        }
        if matches!(flaw, Flaw::SelfSignedAuthority | Flaw::ExpiredSelfSignedAuthority) {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        self.certified(params, !matches!(flaw, Flaw::None | Flaw::Expired | Flaw::NotYetValid))
    }

    /// One for the user of this name.
    pub(crate) fn client(&self, name: &str) -> Certified {
        self.certified(named(name, &[]), false)
    }

    fn certified(&self, mut params: CertificateParams, by_itself: bool) -> Certified {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (serial, key) = (NEXT.fetch_add(1, Ordering::Relaxed), KeyPair::generate().unwrap());
        params.serial_number = Some(SerialNumber::from(serial));
        let signed = if by_itself { params.self_signed(&key) } else { params.signed_by(&key, &self.0) };
        Certified { certificate: signed.unwrap().pem(), key: key.serialize_pem(), serial }
    }

    /// Its list of what it has revoked.
    pub(crate) fn revocations(&self, revoked: &[&Certified]) -> String {
        self.revocations_until(4000, revoked)
    }

    /// The same, to be followed by another one in this year.
    pub(crate) fn revocations_until(&self, year: i32, revoked: &[&Certified]) -> String {
        let revoked = revoked.iter().map(|certified| RevokedCertParams {
            serial_number: SerialNumber::from(certified.serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
