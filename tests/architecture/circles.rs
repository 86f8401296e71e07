//! Circles of `use` between the files of a room: files in a circle can only be read together.
//!
//! ```text
//!   use crate::a::{b, c::D}; ──▶ module paths ──▶ who uses whom, in each folder ──▶ a circle?
//! ```
//!
//! A file and the folder of its own modules are one: that a module and its parts use each other
//! is no circle. So an arrow is drawn where two paths part: of `a::b` using `a::c::d` it is
//! `b ──▶ c`, in the folder `a`.

use std::collections::{BTreeMap, BTreeSet};

/// A module's name from the root of its crate, such as `["daemon", "logging"]`.
pub(crate) type Module = Vec<String>;

/// Who uses whom among the modules that a module consists of.
type Arrows = BTreeMap<String, BTreeSet<String>>;

/// The circles of a crate; `files` are its modules with their code, without comments.
pub(crate) fn circles(files: &[(Module, String)]) -> Vec<String> {
    let known: BTreeSet<&Module> = files.iter().map(|(module, _)| module).collect();
    let mut rooms: BTreeMap<&[String], Arrows> = BTreeMap::new();
    for (module, code) in files {
        for used in uses(module, code) {
            // The rest of the path is a name in that file.
            let file = (0..=used.len()).rev().map(|length| used[..length].to_vec());
            let Some(target) = file.into_iter().find(|file| known.contains(file)) else {
                continue;
            };
            let same = module.iter().zip(&target).take_while(|(a, b)| a == b);
            let parting = same.count();
            if let (Some(from), Some(to)) = (module.get(parting), target.get(parting)) {
                let room = rooms.entry(&module[..parting]).or_default();
                room.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    let circle_in = |(room, arrows): (&&[String], &Arrows)| {
        let circle = arrows.keys().find_map(|from| circle(arrows, &[from]))?;
        let whole = |name| [*room, &[name]].concat().join("::");
        Some(
            circle
                .into_iter()
                .map(whole)
                .collect::<Vec<_>>()
                .join(" -> "),
        )
    };
    rooms.iter().filter_map(circle_in).collect()
}

/// A way from the first of `way` back to it, on from the last.
fn circle(arrows: &Arrows, way: &[&String]) -> Option<Vec<String>> {
    let next = arrows.get(*way.last()?)?;
    if next.contains(way[0]) {
        let closed = way.iter().chain(&way[..1]);
        return Some(closed.map(|name| (*name).clone()).collect());
    }
    let mut new = next.iter().filter(|name| !way.contains(name));
    new.find_map(|name| circle(arrows, &[way, &[name]].concat()))
}

/// The paths that begin with `crate` or `super`, wherever they stand, from the crate's root.
fn uses(module: &Module, code: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = ["crate::", "super::"]
        .iter()
        .filter_map(|word| rest.find(word))
        .min()
    {
        let is_whole = !rest[..at].ends_with(|before: char| is_of_a_name(before) || before == '$');
        let mut paths = Vec::new();
        rest = tree(&rest[at..], &[], &mut paths);
        if is_whole {
            found.extend(paths.iter().filter_map(|path| absolute(module, path)));
        }
    }
    found
}

fn absolute(module: &Module, path: &Module) -> Option<Module> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    let base = match path.first()?.as_str() {
        "crate" => return Some(path[1..].to_vec()),
        _ => &module[..module.len().checked_sub(ups)?],
    };
    Some([base, &path[ups..]].concat())
}

/// Reads a path, or a tree of them as `use` has it; what stands behind it.
fn tree<'a>(text: &'a str, before: &[String], found: &mut Vec<Module>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(behind) = rest.strip_prefix('}') {
                return behind;
            }
            rest = tree(rest, before, found);
            // Also over the rest of `b as c`.
            let end = rest.find([',', '}']).unwrap_or(rest.len());
            rest = rest[end..].strip_prefix(',').unwrap_or(&rest[end..]);
            if rest.is_empty() {
                return rest;
            }
        }
    }
    let (name, rest) = text.split_at(text.find(|c| !is_of_a_name(c)).unwrap_or(text.len()));
    let path = match name {
        "" => before.to_vec(),
        name => [before, &[name.to_owned()]].concat(),
    };
    match rest.strip_prefix("::") {
        Some(rest) if !name.is_empty() => tree(rest, &path, found),
        _ => {
            found.push(path);
            rest
        }
    }
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn found(files: &[(&str, &str)]) -> Vec<String> {
    let file = |(module, code): &(&str, &str)| {
        let module = module.split_terminator("::").map(str::to_owned);
        (module.collect(), (*code).to_owned())
    };
    circles(&files.iter().map(file).collect::<Vec<_>>())
}

#[test]
fn files_that_use_each_other_are_a_circle_however_it_is_written() {
    for uses_b in [
        "use crate::b::Y;",
        "use super::b::{self, Y as Z};",
        "use crate::{c::{P, Q}, b};",
        "use crate::{\n    c::{P, Q},\n    b,\n};",
        "use crate::c::{P, {Q}}; use crate::b;",
        "fn f() { crate::b::g() }",
    ] {
        let files = [
            ("", ""),
            ("a", uses_b),
            ("b", "use crate::a::X;"),
            ("c", ""),
        ];
        assert_eq!(found(&files), ["a -> b -> a"], "{uses_b}");
    }
}

#[test]
fn longer_circle_is_told_whole_and_in_its_folder() {
    let files = [
        ("r", "mod a;"),
        ("r::a", "use super::b::X;"),
        ("r::b", "use crate::r::c::part::Y;"),
        ("r::c", "mod part;"),
        ("r::c::part", "use crate::r::a;"),
    ];
    assert_eq!(found(&files), ["r::a -> r::b -> r::c -> r::a"]);
}

#[test]
fn module_and_its_parts_are_one_and_one_way_is_no_circle() {
    let files = [
        ("", "use crate::a::X;"),
        ("a", "use part::X; use crate::b::{Y, Z}; use crate::c::W;"),
        ("a::part", "use super::Other; use crate::Failure;"),
        ("b", "use super::c; mycrate::a::f(); $crate::a::m!()"),
        ("c", "fn f() { a::b() }"),
    ];
    assert_eq!(found(&files), Vec::<String>::new());
}
