//! refinery embeds the migrations through a macro, and cannot tell cargo that a new file has appeared.
fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
