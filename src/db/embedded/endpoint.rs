//! How to connect to the server once it runs.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::EmbeddedError;

/// The superuser and the database, both.
pub(super) const NAME: &str = "systole";

/// Where a running server accepts connections. A restart may change the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The folder of the unix socket, which only the server's account and root can enter.
    pub socket_dir: PathBuf,
    /// The port on 127.0.0.1, and the number in the socket's name.
    pub port: u16,
    /// The database's name.
    pub database: &'static str,
    /// The superuser's name.
    pub user: &'static str,
    password_file: PathBuf,
}

impl Endpoint {
    pub(super) fn new(dir: &Path, socket_dir: PathBuf, port: u16) -> Endpoint {
        Endpoint { socket_dir, port, database: NAME, user: NAME, password_file: dir.join("password") }
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{}", self.port))
    }

    /// A URL over the unix socket, without a secret in it.
    pub fn url(&self) -> String {
        let host = encoded(self.socket_dir.as_os_str().as_bytes());
        format!("postgresql://{}@/{}?host={host}&port={}", self.user, self.database, self.port)
    }

    /// A URL over 127.0.0.1 with the password in it, for programs that cannot enter the socket's folder.
    pub fn tcp_url_with_password(&self) -> Result<String, EmbeddedError> {
        let password =
            fs::read_to_string(&self.password_file).map_err(EmbeddedError::io("read", &self.password_file))?;
        Ok(format!("postgresql://{}:{}@127.0.0.1:{}/{}", self.user, password.trim(), self.port, self.database))
    }
}

fn encoded(bytes: &[u8]) -> String {
    let encode = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_folder_fits_into_a_url() {
        let endpoint = Endpoint::new(Path::new("/x"), PathBuf::from("/home/mé/a b&c/s"), 6543);
        assert_eq!(endpoint.url(), "postgresql://systole@/systole?host=%2Fhome%2Fm%C3%A9%2Fa%20b%26c%2Fs&port=6543");
    }
}
