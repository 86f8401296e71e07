//! Writes what the corpora start from: `seeds FOLDER`.

use std::path::PathBuf;
use std::{env, fs, io};

use socket_takeover_fuzz::made;

fn main() -> io::Result<()> {
    let folder = PathBuf::from(env::args().nth(1).unwrap_or_else(|| "corpus".into()));
    for (target, name, bytes) in made::all() {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
