use super::*;

/// WELCOME's count is a number of a record. Where there is no limit of open files to speak of,
/// room for that many would be more memory than there is, and that is no refusal but an abort.
#[test]
fn room_on_a_donors_word_has_an_end() {
    let mut import = Import::default();
    import.expect(usize::MAX);
    assert!(import.held.capacity() >= EXPECTED);
    assert!(import.held.capacity() < 4 * EXPECTED);
    assert!(import.cookies.capacity() < 4 * EXPECTED);
}
