//! The guide for authors of plugins, done as it stands there: every file it shows is written, every command is run in one
//! shell, and what it shows as output is what comes.
//!
//! Not as written are the ports, so that tests run side by side, and where cargo builds, so that it stays warm.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ocm_testdata::peers::skip;

/// What the guide has in its fenced blocks, in its order.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// A file, below a comment that names it.
    File {
        path: String,
        append: bool,
        text: String,
    },
    /// A command; with what it prints, if that is shown.
    Run {
        command: String,
        shown: Option<String>,
    },
}

/// Reads a page: blocks of `sh` are commands, of `console` commands behind `$ ` with their output, and those below
/// `<!-- file: PATH -->` or `<!-- append: PATH -->` are files.
fn parse(page: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut lines = page.lines();
    let mut file = None;
    while let Some(line) = lines.next() {
        if let Some(named) = line.strip_prefix("<!-- ") {
            let named = named.strip_suffix(" -->").unwrap();
            file = Some(named.split_once(": ").unwrap());
            continue;
        }
        let Some(language) = line.strip_prefix("```") else {
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match (language, file.take()) {
            (_, Some((how, path))) => parts.push(Part::File {
                path: path.to_owned(),
                append: match how {
                    "file" => false,
                    "append" => true,
                    _ => panic!("`{how}: {path}` is neither file nor append"),
                },
                text: block
                    .iter()
                    .fold(String::new(), |all, line| all + line + "\n"),
            }),
            ("sh", None) => parts.extend(block.iter().map(|line| Part::Run {
                command: (*line).to_owned(),
                shown: None,
            })),
            ("console", None) => parts.extend(session(&block)),
            (other, None) => panic!("a block of `{other}` that is neither run nor written"),
        }
    }
    parts
}

fn session(block: &[&str]) -> Vec<Part> {
    let mut parts: Vec<(String, String)> = Vec::new();
    for line in block {
        match line.strip_prefix("$ ") {
            Some(command) => parts.push((command.to_owned(), String::new())),
            None => {
                let (_, shown) = parts.last_mut().expect("output follows a command");
                *shown += line;
                *shown += "\n";
            }
        }
    }
    let run = |(command, shown)| Part::Run {
        command,
        shown: Some(shown),
    };
    parts.into_iter().map(run).collect()
}

/// Does the output look like that? `…` stands for anything within a line, alone on a line for any lines.
fn looks_like(shown: &[&str], output: &[&str]) -> bool {
    match (shown, output) {
        ([], []) => true,
        (["…", rest @ ..], _) => {
            (0..=output.len()).any(|skipped| looks_like(rest, &output[skipped..]))
        }
        ([line, shown @ ..], [printed, output @ ..]) => {
            line_looks_like(line, printed.trim_end()) && looks_like(shown, output)
        }
        _ => false,
    }
}

fn line_looks_like(shown: &str, printed: &str) -> bool {
    match shown.split_once('…') {
        None => shown == printed,
        Some((start, rest)) => printed.strip_prefix(start).is_some_and(|printed| {
            let mut ends = printed.char_indices().map(|(at, _)| at);
            ends.any(|at| line_looks_like(rest, &printed[at..])) || rest.is_empty()
        }),
    }
}

#[test]
fn pages_are_read_and_outputs_compared() {
    let page = "text\n```sh\na\nb &\n```\n<!-- file: x/y -->\n```yaml\nk: v\n```\n```console\n$ c\n1\n2\n$ d\n```\n";
    let run = |command: &str, shown: Option<&str>| Part::Run {
        command: command.to_owned(),
        shown: shown.map(str::to_owned),
    };
    let file = Part::File {
        path: "x/y".to_owned(),
        append: false,
        text: "k: v\n".to_owned(),
    };
    let expected = [
        run("a", None),
        run("b &", None),
        file,
        run("c", Some("1\n2\n")),
        run("d", Some("")),
    ];
    assert_eq!(parse(page), expected);
    for (shown, output, like) in [
        (&["a"][..], &["a"][..], true),
        (&["a"], &["b"], false),
        (&["a"], &["a", "b"], false),
        (&["a", "…"], &["a"], true),
        (&["…", "b"], &["a", "a", "b"], true),
        (&["…", "b"], &["a", "b", "c"], false),
        (&["x … z"], &["x yy z"], true),
        (&["x … z"], &["x yy"], false),
        (&["x…"], &["x"], true),
        (&["x …, y: …"], &["x 1, y: 2"], true),
    ] {
        assert_eq!(looks_like(shown, output), like, "{shown:?} {output:?}");
    }
}

/// One shell that does the whole page, in a folder of its own. Every command's output goes to a file beside it.
struct Shell {
    folder: PathBuf,
    script: String,
    shown: Vec<(String, Option<String>)>,
}

impl Shell {
    fn new(name: &str) -> Self {
        // Always the same place: cargo knows what it built by where it lies.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("place")).unwrap();
        Self {
            script: "trap 'kill $(jobs -p) 2>/dev/null' EXIT\nset -o pipefail\n".to_owned(),
            shown: Vec::new(),
            folder,
        }
    }

    fn add(&mut self, part: Part) {
        match part {
            Part::File { path, append, text } => {
                let how = if append { ">>" } else { ">" };
                let _ = write!(
                    self.script,
                    "cat {how} '{path}' <<'END OF FILE'\n{text}END OF FILE\n"
                );
            }
            Part::Run { command, shown } => {
                let at = self.shown.len();
                let out = self.folder.join(at.to_string());
                let out = out.display();
                let _ = write!(
                    self.script,
                    "{{ {command}\n}} > '{out}.out' 2>&1\necho $? > '{out}.code'\n"
                );
                if command.ends_with('&') {
                    // Whoever types is slower than a server starts.
                    let wait = format!(
                        "for _ in {{1..500}}; do [ -s '{out}.out' ] && break; sleep 0.02; done\n"
                    );
                    self.script += &wait;
                }
                self.shown.push((command, shown));
            }
        }
    }

    /// Runs it, then judges command by command.
    fn run(self, environment: &[(&str, &str)]) {
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &self.script])
            .current_dir(self.folder.join("place"));
        shell
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // What cargo told this test is not for the cargo of the guide.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            let of_cargo = name.starts_with("CARGO_") && name != "CARGO_HOME";
            if of_cargo
                || ["RUSTFLAGS", "RUSTDOCFLAGS"].contains(&&*name)
                || name.starts_with("OCM_")
            {
                shell.env_remove(name);
            }
        }
        shell.envs(environment.iter().copied());
        let mut shell = shell.spawn().unwrap();
        let limit = std::time::Instant::now() + Duration::from_secs(900);
        while shell.try_wait().unwrap().is_none() {
            if std::time::Instant::now() > limit {
                shell.kill().unwrap();
                panic!("the guide takes too long");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut failures = String::new();
        for (at, (command, shown)) in self.shown.iter().enumerate() {
            let read = |end: &str| std::fs::read_to_string(self.folder.join(format!("{at}.{end}")));
            let (code, output) = (
                read("code").unwrap_or_default(),
                read("out").unwrap_or_default(),
            );
            let printed: Vec<&str> = output.lines().collect();
            let expected: Vec<&str> = shown.iter().flat_map(|shown| shown.lines()).collect();
            let may_fail = expected.iter().any(|line| line.starts_with("error: "));
            let well = if may_fail {
                code.trim() != ""
            } else {
                code.trim() == "0"
            };
            let alike = shown.is_none() || looks_like(&expected, &printed);
            if !(well && alike) {
                let _ = writeln!(
                    failures,
                    "$ {command}\n{output}(exit code {})\n",
                    code.trim()
                );
            }
        }
        assert!(failures.is_empty(), "{failures}");
    }
}

/// Where this user's cargo and rustup keep their things: the guide has another home, for `ocm`.
fn homes() -> [(&'static str, String); 2] {
    let home = std::env::var("HOME").unwrap_or_default();
    [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")].map(|(name, folder)| {
        let set = std::env::var(name);
        (name, set.unwrap_or_else(|_| format!("{home}/{folder}")))
    })
}

/// The path with the program under test in front.
fn path() -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_ocm")).parent().unwrap();
    format!(
        "{}:{}",
        bin.display(),
        std::env::var("PATH").unwrap_or_default()
    )
}

fn has_target() -> bool {
    let asked = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = asked.map(|asked| String::from_utf8_lossy(&asked.stdout).trim().to_owned());
    let library = |root| Path::new(&root).join("lib/rustlib/wasm32-wasip2").is_dir();
    let found = sysroot.is_ok_and(library);
    if !found {
        skip("the target wasm32-wasip2 is not installed (rustup target add wasm32-wasip2)");
    }
    found
}

/// Can the crates that the kit needs be had?
fn has_crates(environment: &[(&str, &str)]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder.path());
        command.envs(environment.iter().copied()).output().unwrap()
    };
    let made = run(env!("CARGO_BIN_EXE_ocm"), &["plugin", "new", "fetched"]);
    assert!(made.status.success(), "{made:?}");
    let manifest = ["--manifest-path", "fetched/Cargo.toml"];
    let fetched = run("cargo", &[&["fetch", "--locked"][..], &manifest].concat());
    let why = String::from_utf8_lossy(&fetched.stderr).into_owned();
    if !fetched.status.success() {
        skip(&format!("cargo can't fetch what the kit needs: {why}"));
    }
    fetched.status.success()
}

/// A port that nobody has now.
fn port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn every_command_of_the_guide_for_plugins_works() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/plugin-guide.md");
    let page = std::fs::read_to_string(page).unwrap();
    let page = page
        .replace("127.0.0.1:5001", &port())
        .replace("127.0.0.1:5002", &port());
    let mut shell = Shell::new("guide");
    let home = shell.folder.join("home").display().to_string();
    let [cargo, rustup] = homes();
    let path = path();
    let environment = [
        ("HOME", home.as_str()),
        ("PATH", path.as_str()),
        (cargo.0, cargo.1.as_str()),
        (rustup.0, rustup.1.as_str()),
    ];
    if !has_target() || !has_crates(&environment) {
        return;
    }
    let warm = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guide-target");
    std::fs::create_dir_all(&warm).unwrap();
    for part in parse(&page) {
        let enters = matches!(&part, Part::Run { command, .. } if command.starts_with("cd "));
        shell.add(part);
        if enters {
            let _ = writeln!(shell.script, "ln -s '{}' target", warm.display());
        }
    }
    shell.run(&environment);
}
