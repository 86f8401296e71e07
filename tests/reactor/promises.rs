//! The contract in the reactor's documentation names its tests: here they are looked for.

use std::fs;
use std::path::Path;

/// The lines of the contract: a number, the promise, the names of tests, some cut short by `…`.
fn contract() -> Vec<(u32, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guide = fs::read_to_string(root.join("src/event.rs")).unwrap();
    let rows = guide.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("//! | ")?.split(" | ");
        let number = cells.next()?.parse().ok()?;
        let names = cells.last()?.split('`').skip(1).step_by(2);
        Some((number, names.map(str::to_owned).collect()))
    });
    rows.collect()
}

fn tests() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let folders = [folder.join("reactor"), folder];
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let files = entries.map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ext| ext == "rs"));
    files
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

#[test]
fn promise_of_the_contract_is_held_by_tests_that_exist() {
    let (contract, tests) = (contract(), tests());
    let numbers: Vec<u32> = contract.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=16).collect::<Vec<_>>());
    for (number, names) in contract {
        assert!(!names.is_empty(), "line {number} names no test");
        for name in names {
            let declared = match name.strip_suffix('…') {
                Some(begins) => format!("\nfn {begins}"),
                None => format!("\nfn {name}()"),
            };
            assert!(tests.contains(&declared), "line {number}: no test {name}");
        }
    }
}
