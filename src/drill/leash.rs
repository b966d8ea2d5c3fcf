//! What ends the servers of a drill and removes its folder, also when the drill itself was killed.

use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::error::DrillError;
use super::servers::FOLDERS;

/// The folder of a drill, and a process that stops the servers in it and removes it when this one has gone, however it went.
#[derive(Debug)]
pub(super) struct Leash {
    pub(super) folder: PathBuf,
    holder: Child,
}

impl Leash {
    /// Makes the folder.
    pub(super) fn make() -> Result<Leash, DrillError> {
        const HOLD: &str = "read -r word
            program=$1 folder=$2
            shift 2
            for server; do SYSTOLE_EMBEDDED_DIR=\"$folder/$server\" \"$program\" embedded stop; done
            [ \"$word\" = keep ] || rm -rf \"$folder\"";
        let folder = std::env::temp_dir().join(format!("systole-drill-{}", std::process::id()));
        let failed = || DrillError::at(format!("make the folder {}", folder.display()));
        fs::create_dir(&folder).map_err(failed())?;
        let program = std::env::current_exe().map_err(failed())?;
        let mut holder = Command::new("sh");
        // Of its own, so that a key on our terminal is for us.
        holder.args(["-c", HOLD, "sh"]).arg(program).arg(&folder).args(FOLDERS).process_group(0);
        holder.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let holder = holder.spawn().map_err(failed())?;
        Ok(Leash { folder, holder })
    }

    /// Lets go: the servers end, and unless somebody wants to look into it, the folder goes. Blocks until then.
    pub(super) fn let_go(mut self, is_kept: bool) -> io::Result<()> {
        if let (true, Some(stdin)) = (is_kept, &mut self.holder.stdin) {
            stdin.write_all(b"keep\n")?;
        }
        drop(self.holder.stdin.take());
        self.holder.wait().map(drop)
    }
}
