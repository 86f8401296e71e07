//! The name PATH, checked before anything is touched.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::stat;

use crate::takeover::os::folder::{Folder, is_exposed};

/// The longest PATH in bytes. Nothing here needs the limit, but a longer name could not be
/// given to any program that puts it into a sockaddr_un (unix(7)).
pub const MAX_PATH: usize = 107;

/// A PATH that can name a takeover socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeoverPath {
    given: PathBuf,
    /// Absolute, since a daemon leaves its working directory.
    pub(in crate::takeover::os) directory: PathBuf,
    pub(in crate::takeover::os) name: OsString,
}

/// Why a PATH is unusable. Nothing was touched.
#[derive(Debug)]
#[non_exhaustive]
pub enum PathError {
    /// No bytes.
    Empty,
    /// Longer than [`MAX_PATH`]; how long.
    TooLong(usize),
    /// A NUL byte inside. Abstract names are not supported: they have no permissions.
    Nul,
    /// The name of a directory.
    Directory,
    /// It is relative, and there is no working directory.
    NoWorkingDirectory(io::Error),
}

impl TakeoverPath {
    /// Checks the name alone, and that it is not a directory.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(path: impl AsRef<Path>) -> Result<TakeoverPath, PathError> {
        let given = path.as_ref();
        let bytes = given.as_os_str().as_bytes();
        if bytes.is_empty() {
            return Err(PathError::Empty);
        }
        if bytes.len() > MAX_PATH {
            return Err(PathError::TooLong(bytes.len()));
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        // Path hides a trailing "/" or "/.", so look at the bytes.
        let last = bytes.rsplit(|&byte| byte == b'/').next();
        let names_directory = matches!(last, None | Some(b"" | b"." | b".."));
        if names_directory || fs::symlink_metadata(given).is_ok_and(|found| found.is_dir()) {
            return Err(PathError::Directory);
        }
        let absolute = std::path::absolute(given).map_err(PathError::NoWorkingDirectory)?;
        let (Some(directory), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return Err(PathError::Directory);
        };
        Ok(TakeoverPath {
            given: given.to_owned(),
            directory: directory.to_owned(),
            name: name.to_owned(),
        })
    }

    /// PATH as it was given.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.given
    }

    /// Whether users beside root and us could put another file in PATH's place, because its
    /// directory is theirs or everybody's. Worth a warning; the checks of owner and
    /// credentials stay.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        stat(&self.directory).is_ok_and(|found| is_exposed(&found))
    }

    pub(in crate::takeover::os) fn open_directory(&self) -> nix::Result<Folder> {
        Folder::open(&self.directory)
    }
}

impl fmt::Display for TakeoverPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.given.display().fmt(out)
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathError::Empty => out.write_str("is empty"),
            PathError::TooLong(length) => {
                write!(
                    out,
                    "has {length} bytes, a socket's name has at most {MAX_PATH}"
                )
            }
            PathError::Nul => out.write_str("contains a NUL byte"),
            PathError::Directory => out.write_str("names a directory, not a socket in one"),
            PathError::NoWorkingDirectory(error) => {
                write!(
                    out,
                    "is relative, and there is no working directory: {error}"
                )
            }
        }
    }
}

impl Error for PathError {}
