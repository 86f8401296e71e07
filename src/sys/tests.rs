use super::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

fn readable(fd: &OwnedFd, milliseconds: u16) -> bool {
    use nix::poll::{PollFd, PollFlags, poll};
    let mut wanted = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut wanted, milliseconds).is_ok_and(|ready| ready == 1)
}

#[test]
fn pidfd_of_killed_process_becomes_readable() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let pidfd = pidfd_open(child.id()).unwrap();
    assert!(!readable(&pidfd, 0));
    pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
    assert!(readable(&pidfd, 10_000));
    child.wait().unwrap();
    let error = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
}

#[test]
fn end_of_a_child_is_collected_once_and_as_wait_tells_it() {
    for (script, expected) in [("exit 3", 3 << 8), ("kill -9 $$", 9), ("kill -34 $$", 34)] {
        let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let pidfd = pidfd_open(child.id()).unwrap();
        assert!(readable(&pidfd, 10_000));
        for collect in [Collect::No, Collect::Yes] {
            let status = wait_pidfd(pidfd.as_fd(), collect).unwrap();
            assert_eq!(status, Some(ExitStatus::from_raw(expected)));
        }
        let error = wait_pidfd(pidfd.as_fd(), Collect::Yes).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
        child.wait().unwrap_err();
    }
}

#[test]
fn end_of_a_running_child_or_of_no_child_is_told() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let pidfd = pidfd_open(child.id()).unwrap();
    assert_eq!(wait_pidfd(pidfd.as_fd(), Collect::Yes).unwrap(), None);
    child.kill().unwrap();
    child.wait().unwrap();
    let own = pidfd_open(std::process::id()).unwrap();
    let error = wait_pidfd(own.as_fd(), Collect::No).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
}

#[test]
fn tun_interface_with_too_long_a_name_is_not_opened() {
    match open_tun("sixteen_letters_") {
        // Where there is no device it does not come to the name.
        Err(error) if fs::metadata("/dev/net/tun").is_err() => println!("skipped: {error}"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            println!("skipped: {error}");
        }
        opened => assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::InvalidInput),
    }
}

#[test]
fn fork_with_a_second_thread_is_refused() {
    // The test harness itself runs this in a thread beside its main one.
    let error = fork_alone().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn thread_with_a_table_of_its_own_keeps_one_descriptor_and_the_process_all() {
    let (mut reader, writer) = io::pipe().unwrap();
    let number = writer.as_raw_fd();
    let other = reader.as_raw_fd();
    let in_thread = std::thread::spawn(move || {
        let mut mine = File::from(own_table(number).unwrap());
        mine.write_all(b"mine").unwrap();
        let task = format!("/proc/thread-self/fd/{other}");
        // An old kernel shares the table, and a new one has closed everything else.
        (mine.as_raw_fd() == number, fs::read_link(task).is_err())
    });
    let (alone, closed) = in_thread.join().unwrap();
    assert_eq!(alone, closed);
    drop(writer);
    let mut said = String::new();
    reader.read_to_string(&mut said).unwrap();
    assert_eq!(said, "mine");
    assert!(own_table(-1).is_err());
}

#[test]
fn ignored_signal_makes_a_write_fail_in_place_of_the_process() {
    assert!(ignore_signal(Signal::SIGKILL).is_err());
    // The shell's own write meets the limit: it dies, or it lives to tell.
    let script = "ulimit -f 0; : >$0; printf x 2>/dev/null >>$0; echo alive";
    let folder = tempfile::tempdir().unwrap();
    let run = |ignored: bool| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(folder.path().join("file"));
        if ignored {
            // SAFETY: one sigaction(2) between fork and exec (signal-safety(7)).
            unsafe { command.pre_exec(|| ignore_signal(Signal::SIGXFSZ)) };
        }
        command.output().unwrap().stdout
    };
    assert_eq!(run(false), b"");
    assert_eq!(run(true), b"alive\n");
}

#[test]
fn queue_lengths_follow_the_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"12345").unwrap();
    server.read_exact(&mut [0; 2]).unwrap();
    assert_eq!(unread_bytes(&server).unwrap(), 3);
    assert_eq!(unsent_bytes(&server).unwrap(), 0);
}

#[test]
fn shorter_slices_are_asked_for_and_leave_the_rest_alone() {
    // It is a matter of the thread.
    let asked = std::thread::spawn(|| {
        let before = scheduling().unwrap();
        ask_for_shorter_slices().unwrap();
        (before, scheduling().unwrap())
    });
    let (before, after) = asked.join().unwrap();
    let kept = |of: &Scheduling| (of.policy, of.nice, of.flags);
    assert_eq!(kept(&after), kept(&before));
    if before.runtime == 0 {
        println!("skipped: this kernel tells no slices");
    } else {
        assert!(after.runtime < before.runtime, "{after:?}");
    }
}
