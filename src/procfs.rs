//! What a missing `/proc` looks like, in words.
//!
//! Several calls have no other way than through `/proc` (a descriptor's own file, the number of
//! threads). Where it is not mounted, as in a bare chroot(2), they fail with ENOENT, which reads
//! as if something else were missing.

use std::fs;
use std::io;

/// The error of a call that goes through `/proc`; says so if that is not there.
pub fn explain(error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    // The link is there whatever the rights and however it is mounted (proc(5)).
    let is_missing = || fs::symlink_metadata("/proc/self").is_err();
    if error.kind() == io::ErrorKind::NotFound && is_missing() {
        let what = "/proc is not mounted, and is needed (mount -t proc proc /proc)";
        return io::Error::new(error.kind(), what);
    }
    error
}
