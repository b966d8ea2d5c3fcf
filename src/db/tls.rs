//! What a server has to prove, by libpq's `sslmode`, and the rustls configuration that asks for it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls::{SupportedProtocolVersion, version};

use super::conninfo::{Conninfo, Environment, InvalidTarget};

/// How much of TLS is asked for, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    Disable,
    /// If the server has it. Nothing is verified.
    Prefer,
    /// Encrypted, by whomever. Nothing is verified.
    Require,
    /// The server's certificate is signed by somebody we trust.
    VerifyCa,
    /// And is the one of the host that was asked for.
    VerifyFull,
}

impl Mode {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Mode::Disable => "disable",
            Mode::Prefer => "prefer",
            Mode::Require => "require",
            Mode::VerifyCa => "verify-ca",
            Mode::VerifyFull => "verify-full",
        }
    }
}

/// Everything about TLS that was asked for. Its files are read at each dialling, so that they can be renewed under a
/// running executor; only the system's certificates are kept.
#[derive(Debug, Clone)]
pub(super) struct Tls {
    /// As asked for; else it depends on the host.
    pub(super) mode: Option<Mode>,
    /// A file; `None` is the system's certificates.
    roots: Option<PathBuf>,
    /// Certificate and key.
    client: Option<(PathBuf, PathBuf)>,
    client_is_named: bool,
    revoked: Option<PathBuf>,
    versions: Vec<&'static SupportedProtocolVersion>,
    /// TLS from the first byte, without asking in plain text first.
    pub(super) direct: bool,
}

impl Tls {
    pub(super) fn of(conninfo: &Conninfo, environment: &Environment<'_>) -> Result<Tls, InvalidTarget> {
        let existing = |name: &str| environment.at_home(name).filter(|path| path.exists());
        let mode = conninfo.read("sslmode", "disable, prefer, require, verify-ca or verify-full", mode_of)?;
        let system = conninfo.text("sslrootcert") == Some("system");
        let named = conninfo.text("sslrootcert").filter(|_| !system).map(PathBuf::from);
        let is_named = named.is_some();
        let roots = if system { None } else { named.or_else(|| existing(".postgresql/root.crt")) };
        let mode = match mode {
            // As in libpq: a certificate that is there is for verifying with.
            Some(Mode::Require) if roots.is_some() => Some(Mode::VerifyCa),
            Some(weaker) if system && weaker < Mode::VerifyFull => {
                return Err(conninfo.refuse("sslmode", weaker.as_str(), "verify-full, since sslrootcert is system"));
            }
            // Whoever names whom to trust wants it looked at, also at the end of a tunnel.
            None if is_named || system => Some(Mode::VerifyFull),
            mode => mode,
        };
        // As in libpq, the list in the home folder is one about those whom a file names. (One that was named itself counts
        // always.)
        let revoked = conninfo.text("sslcrl").map(PathBuf::from);
        let revoked = revoked.or_else(|| existing(".postgresql/root.crl").filter(|_| roots.is_some()));
        let certificate =
            conninfo.text("sslcert").map(PathBuf::from).or_else(|| existing(".postgresql/postgresql.crt"));
        let key =
            conninfo.text("sslkey").map(PathBuf::from).or_else(|| environment.at_home(".postgresql/postgresql.key"));
        Ok(Tls {
            mode,
            roots,
            client: certificate.zip(key),
            client_is_named: conninfo.text("sslcert").is_some(),
            revoked,
            versions: versions(conninfo)?,
            direct: conninfo
                .read("sslnegotiation", "postgres or direct", |text| match text {
                    "postgres" => Some(false),
                    "direct" => Some(true),
                    _ => None,
                })?
                .unwrap_or(false),
        })
    }

    /// What is wrong with the files is said now, and not at the first failover.
    pub(super) fn check(&self, conninfo: &Conninfo) -> Result<(), InvalidTarget> {
        let told = |keyword, path: &Path, result: Result<(), String>| {
            result.map_err(|reason| conninfo.refuse_file(keyword, path, reason))
        };
        if let Some(path) = &self.roots {
            told("sslrootcert", path, roots_in(path).map(drop))?;
        }
        if let Some((certificate, key)) = &self.client {
            told("sslcert", certificate, certificates_in(certificate).map(drop))?;
            told("sslkey", key, key_in(key).map(drop))?;
        }
        if let Some(path) = &self.revoked {
            told("sslcrl", path, revoked_in(path).map(drop))?;
        }
        Ok(())
    }

    /// What rustls has to ask for.
    pub(super) fn config(&self, mode: Mode) -> Result<ClientConfig, String> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.versions)
            .map_err(|error| error.to_string())?;
        let algorithms = provider.signature_verification_algorithms;
        let proof = match mode {
            Mode::Disable | Mode::Prefer | Mode::Require => None,
            Mode::VerifyCa | Mode::VerifyFull => Some(self.proof(provider, mode)?),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Verifier { algorithms, proof }));
        let mut config = match &self.client {
            // Where nothing is demanded, nothing that lies about in a home folder may be in the way.
            Some((certificate, key)) if mode >= Mode::Require || self.client_is_named && mode == Mode::Prefer => {
                builder
                    .with_client_auth_cert(certificates_in(certificate)?, key_in(key)?)
                    .map_err(|error| format!("the client certificate {}: {error}", certificate.display()))?
            }
            _ => builder.with_no_client_auth(),
        };
        if self.direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(config)
    }

    fn proof(&self, provider: Arc<CryptoProvider>, mode: Mode) -> Result<Proof, String> {
        let (roots, named) = match &self.roots {
            Some(path) => (Arc::new(roots_in(path)?), certificates_in(path)?),
            None => (systems_roots()?, Vec::new()),
        };
        let mut builder = WebPkiServerVerifier::builder_with_provider(roots, provider);
        if let Some(path) = &self.revoked {
            // As in libpq, there must be a list for each issuer of the chain, and none that has expired.
            builder = builder.with_crls(revoked_in(path)?).enforce_revocation_expiration();
        }
        // By the system's authorities anybody has a certificate for some name: then the name counts, also with verify-ca.
        let webpki = builder.build().map_err(|error| error.to_string())?;
        let any_name = mode < Mode::VerifyFull && self.roots.is_some();
        Ok(Proof { webpki, named, has_lists: self.revoked.is_some(), any_name })
    }
}

fn mode_of(text: &str) -> Option<Mode> {
    match text {
        "disable" => Some(Mode::Disable),
        // Without TLS first, and with it if that is refused: nobody is worse off with it first.
        "allow" | "prefer" => Some(Mode::Prefer),
        "require" => Some(Mode::Require),
        "verify-ca" => Some(Mode::VerifyCa),
        "verify-full" => Some(Mode::VerifyFull),
        _ => None,
    }
}

fn versions(conninfo: &Conninfo) -> Result<Vec<&'static SupportedProtocolVersion>, InvalidTarget> {
    // The ones below 1.2 are not to be had, so as a lower bound they are as good as 1.2.
    let rank = |text: &str| match text.to_ascii_lowercase().as_str() {
        "tlsv1" | "tlsv1.1" | "tlsv1.2" => Some(2),
        "tlsv1.3" => Some(3),
        _ => None,
    };
    let highest =
        |text: &str| rank(text).filter(|_| !matches!(text.to_ascii_lowercase().as_str(), "tlsv1" | "tlsv1.1"));
    let least = conninfo.read("ssl_min_protocol_version", "TLSv1.2 or TLSv1.3", rank)?.unwrap_or(2);
    let most = conninfo.read("ssl_max_protocol_version", "TLSv1.2 or TLSv1.3", highest)?.unwrap_or(3);
    if least > most {
        return Err(conninfo.refuse("ssl_max_protocol_version", "TLSv1.2", "not below ssl_min_protocol_version"));
    }
    Ok([(2, &version::TLS12), (3, &version::TLS13)]
        .into_iter()
        .filter(|(rank, _)| (least..=most).contains(rank))
        .map(|(_, version)| version)
        .collect())
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider())).clone()
}

fn systems_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        return Err("this system has no certificates to verify with: install ca-certificates, or name a file with \
                    sslrootcert"
            .to_owned());
    }
    Ok(roots.clone())
}

fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err("there is no certificate in it (PEM is expected)".to_owned())
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(error.to_string()),
    }
}

fn roots_in(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(path)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

fn revoked_in(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_file_iter(path).and_then(Iterator::collect);
    match lists {
        Ok(lists) if lists.is_empty() => Err("there is no revocation list in it (PEM is expected)".to_owned()),
        Ok(lists) => Ok(lists),
        Err(error) => Err(error.to_string()),
    }
}

/// As libpq has it: nobody else may read a key, but root's may be shared with a group.
fn key_in(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let metadata = fs::metadata(path).map_err(|error: io::Error| error.to_string())?;
    let forbidden = if metadata.uid() == 0 { 0o027 } else { 0o077 };
    if metadata.permissions().mode() & forbidden != 0 {
        return Err(format!("others can read this key: chmod 0600 {}", path.display()));
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("{error} (an unencrypted PEM key is expected)"))
}

/// Asks for the proof that the mode wants.
#[derive(Debug)]
struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    /// Without it every certificate is taken: whoever shakes hands holds its key, which says nothing about who that is.
    proof: Option<Proof>,
}

/// Issuer, dates, revocation and name; or for `verify-ca` everything but the name.
#[derive(Debug)]
struct Proof {
    webpki: Arc<WebPkiServerVerifier>,
    /// The certificates that were named as roots.
    named: Vec<CertificateDer<'static>>,
    /// There are lists of what was revoked.
    has_lists: bool,
    any_name: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::Error::InvalidCertificate;
        let Some(proof) = &self.proof else { return Ok(ServerCertVerified::assertion()) };
        let verdict = match proof.webpki.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // webpki takes no server for an authority, which `openssl req -x509` makes of what it signs by itself. Its
            // dates have been looked at by then, and whoever has named this very certificate has no other issuer in mind.
            Err(InvalidCertificate(CertificateError::Other(_))) if proof.named.contains(certificate) => {
                // The lists have not been looked at.
                if proof.has_lists {
                    return Err(InvalidCertificate(CertificateError::UnknownRevocationStatus));
                }
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
                    .map(|()| ServerCertVerified::assertion())
            }
            verdict => verdict,
        };
        // The name is looked at last, behind everything else.
        match verdict {
            Err(InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if proof.any_name => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
