//! Where the cluster and its socket live; decided from the environment and the path alone.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::account::Account;
use super::error::EmbeddedError;

/// Bytes of a socket's path: `sun_path` has 104 on macOS (108 on Linux), the last for the final NUL.
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// The folder of this user's cluster, from the environment.
pub(super) fn of_this_user() -> Result<PathBuf, EmbeddedError> {
    let root = rustix::process::geteuid().is_root();
    let dir = choose(|name| std::env::var_os(name), root, cfg!(target_os = "macos"))?;
    std::path::absolute(&dir).map_err(EmbeddedError::io("find", &dir))
}

fn choose(variable: impl Fn(&str) -> Option<OsString>, root: bool, macos: bool) -> Result<PathBuf, EmbeddedError> {
    if let Some(dir) = variable("SYSTOLE_EMBEDDED_DIR").filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    if root {
        // Not below /root: user postgres must be able to walk there.
        return Ok("/var/lib/systole/embedded".into());
    }
    // The XDG rules tell to ignore relative paths, and HOME may be empty in a container.
    let absolute = |name| variable(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = || absolute("HOME").ok_or(EmbeddedError::NoHome);
    let data = if macos {
        home()?.join("Library/Application Support")
    } else if let Some(data) = absolute("XDG_DATA_HOME") {
        data
    } else {
        home()?.join(".local/share")
    };
    Ok(data.join("systole/embedded"))
}

/// Where the socket of the cluster in `dir` is: within it, or in /tmp if that path would be too long for a socket, or
/// would not survive a URL (clients take a comma for the start of the next host).
pub(super) fn socket_dir(dir: &Path, account: &Account) -> PathBuf {
    let inside = dir.join("s");
    let fits = inside.as_os_str().len() + "/.s.PGSQL.65535".len() <= SOCKET_PATH_BYTES_MAX;
    if fits && inside.to_str().is_some_and(|path| !path.contains(',')) {
        return inside;
    }
    let hash =
        Sha256::new().chain_update(dir.as_os_str().as_bytes()).chain_update(account.uid.to_le_bytes()).finalize();
    let name: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    Path::new("/tmp").join(format!("systole-{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: bool = true;
    const USER: bool = false;
    const ME: Account = Account { uid: 1000, gid: 1000, switch: false };

    fn chosen(variables: &[(&str, &str)], root: bool, macos: bool) -> Option<String> {
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        choose(variable, root, macos).ok().map(|dir| dir.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_folder_follows_the_environment() {
        let home = ("HOME", "/home/me");
        let asked = ("SYSTOLE_EMBEDDED_DIR", "/x");
        assert_eq!(chosen(&[home, asked], ROOT, false).as_deref(), Some("/x"));
        assert_eq!(chosen(&[home], ROOT, false).as_deref(), Some("/var/lib/systole/embedded"));
        assert_eq!(chosen(&[home], USER, false).as_deref(), Some("/home/me/.local/share/systole/embedded"));
        assert_eq!(chosen(&[home, ("XDG_DATA_HOME", "/d")], USER, false).as_deref(), Some("/d/systole/embedded"));
        assert_eq!(chosen(&[home, ("XDG_DATA_HOME", "d")], USER, false), chosen(&[home], USER, false));
        let mac = "/home/me/Library/Application Support/systole/embedded";
        assert_eq!(chosen(&[home, ("SYSTOLE_EMBEDDED_DIR", "")], USER, true).as_deref(), Some(mac));
        assert_eq!(chosen(&[("HOME", "")], USER, false), None);
    }

    #[test]
    fn a_socket_path_always_fits() {
        for length in 1..200 {
            let dir = PathBuf::from(format!("/{}", "d".repeat(length)));
            let socket = socket_dir(&dir, &ME);
            assert!(socket.as_os_str().len() + "/.s.PGSQL.65535".len() <= 103);
            assert_eq!(socket == dir.join("s"), 1 + length + 2 + 15 <= 103, "{length}");
        }
        assert!(socket_dir(Path::new("/a,b"), &ME).starts_with("/tmp"));
        let long = PathBuf::from("/d".repeat(99));
        let somebody = Account { uid: ME.uid + 1, ..ME };
        assert_ne!(socket_dir(&long, &ME), socket_dir(&long, &somebody));
    }
}
