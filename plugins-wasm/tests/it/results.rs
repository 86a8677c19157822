//! Results that are kept: what is known is not run again, and nothing is known that is not sure.

use std::path::Path;
use std::sync::Arc;

use ocm_content::Disk;
use ocm_plugins_wasm::{Host, Results};
use serde_json::{Value as Json, json};

use crate::guests::{Ran, asked, host_with, plugin, prebuilt, run_plan, types};

/// Room for results of a run.
const ROOM: u64 = 64 << 20;

/// One run of a program: planned and run with a host of its own. Gives the host, too.
async fn run_of(folder: &Path, room: u64, steps: &str) -> (Ran, Arc<Host>) {
    let results = Results::of_size(folder, Disk::default(), room);
    let host = host_with(|config| config.results = Some(results));
    let basics = plugin(&host, prebuilt("basics.wasm"))
        .await
        .expect("a plugin");
    let hostile = plugin(&host, prebuilt("hostile.wasm"))
        .await
        .expect("its description is well");
    let plan = asked(&types(&[&basics, &hostile]), steps).await;
    let ran = run_plan(plan.unwrap_or_else(|error| panic!("{error}"))).await;
    (ran, host)
}

fn counts(host: &Host) -> (u64, u64) {
    host.results().expect("it was given").counts()
}

/// The files of the folder, by their ends.
fn files(folder: &Path, end: &str) -> Vec<std::path::PathBuf> {
    let listing = std::fs::read_dir(folder).into_iter().flatten();
    let paths = listing.map(|file| file.expect("a file").path());
    let mut found: Vec<_> = paths
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect();
    found.sort();
    found
}

/// Every way of handing on, one behind the other.
const CHAIN: &str = r#"
- {id: give1, type: Give/v1, spec: {times: 5000, chunk: 1009}}
- {id: same1, type: Identity/v1alpha1, spec: {data: "${give1.output.data}", way: same}}
- {id: rot1, type: Rot13/v1alpha1, spec: {data: "${same1.output.data}"}}
- {id: count1, type: Count/v1alpha1, spec: {data: "${rot1.output.data}"}}
- {id: split1, type: Split/v1alpha1, spec: {data: "${count1.output.data}", at: "${count1.output.lines}"}}
- {id: take1, type: Take/v1, spec: {data: "${split1.output.head}"}}
- {id: take2, type: Take/v1, spec: {data: "${split1.output.tail}"}}
- {id: take3, type: Take/v1, spec: {data: "${rot1.output.data}"}}
"#;

fn taken(ran: &Ran) -> Vec<Json> {
    assert_eq!(ran.failures(), [] as [&str; 0]);
    let steps = ["count1", "take1", "take2", "take3"];
    let digests = steps.map(|step| {
        let output = ran.output(step);
        json!([
            output["lines"],
            output["bytes"],
            output["digest"],
            output["head"]
        ])
    });
    digests.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_calls_no_guest() {
    for once in ["", ", once: true", ", stated: true"] {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = &folder.path().join("results");
        let chain = CHAIN.replace("chunk: 1009", &format!("chunk: 1009{once}"));
        let (first, host) = run_of(folder, ROOM, &chain).await;
        assert_eq!(counts(&host), (0, 4), "{once}");
        let (second, host) = run_of(folder, ROOM, &chain).await;
        assert_eq!(counts(&host), (4, 0), "{once}");
        assert_eq!(host.usage().made(), 0, "{once}: a guest was called");
        assert_eq!(taken(&first), taken(&second), "{once}");
        // Ids and order are no part of what a step is.
        let renamed = chain.replace("rot1", "turn");
        let (third, host) = run_of(folder, ROOM, &renamed).await;
        assert_eq!(
            (host.usage().made(), third.failures().len()),
            (0, 0),
            "{once}"
        );
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder)
                .expect("it was made")
                .permissions();
            assert_eq!(mode.mode() & 0o777, 0o700);
        }
        assert_eq!(
            files(folder, "").len(),
            files(folder, ".json").len() + files(folder, ".bytes").len()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_step_is_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = &folder.path().join("results");
    let steps = |give: &str, spec: &str| {
        format!(
            "
- {{id: give1, type: Give/v1, spec: {{times: 10{give}}}}}
- {{id: split1, type: Split/v1alpha1, spec: {{data: '${{give1.output.data}}', at: {spec}}}}}
- {{id: take1, type: Take/v1, spec: {{data: '${{split1.output.head}}'}}}}
"
        )
    };
    for (give, spec, is_known) in [
        ("", "5", false),
        ("", "5", true),
        (", stated: true", "5", true),
        ("", "6", false),
        (", text: other", "5", false),
        (", mediaType: text/html", "5", false),
        ("", "6", true),
    ] {
        let (ran, host) = run_of(folder, ROOM, &steps(give, spec)).await;
        assert_eq!(ran.failures(), [] as [&str; 0]);
        assert_eq!(counts(&host).0 == 1, is_known, "{give} {spec}");
        assert_eq!(host.usage().made() == 0, is_known, "{give} {spec}");
    }
    // Results go with their plugins.
    let results = Results::new(folder, Disk::default());
    let basics = ocm_specs::Digest::sha256(&prebuilt("basics.wasm"));
    assert_eq!(
        results
            .prune(|digest| *digest == basics)
            .expect("it is ours"),
        0
    );
    assert!(results.prune(|_| false).expect("it is ours") > 0);
    assert!(files(folder, "").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_damaged_or_lost_is_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = &folder.path().join("results");
    let (first, _) = run_of(folder, ROOM, CHAIN).await;
    let expected = taken(&first);
    type Change = fn(&mut Vec<u8>);
    let flip: Change = |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let damages: [(&str, Option<Change>); 8] = [
        (".bytes", Some(flip)),
        (".bytes", Some(|bytes| bytes.truncate(bytes.len() / 2))),
        (".bytes", Some(|bytes| bytes.push(0))),
        (".json", Some(flip)),
        (".json", Some(Vec::clear)),
        (
            ".json",
            Some(|bytes| bytes[..7].copy_from_slice(b"sha512:")),
        ),
        (".bytes", None),
        (".json", None),
    ];
    for (end, change) in damages {
        for path in files(folder, end) {
            let Some(change) = change else {
                std::fs::remove_file(path).expect("it is ours");
                continue;
            };
            let mut bytes = std::fs::read(&path).expect("a file");
            change(&mut bytes);
            std::fs::write(&path, bytes).expect("it is ours");
        }
        let (ran, host) = run_of(folder, ROOM, CHAIN).await;
        assert_eq!(taken(&ran), expected);
        assert!(host.usage().made() > 0, "nothing was made again");
        let (ran, host) = run_of(folder, ROOM, CHAIN).await;
        assert_eq!(taken(&ran), expected);
        assert_eq!(host.usage().made(), 0, "it was not mended");
    }
    // A folder that others can write to is not used, and does no harm.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |mode| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode));
        mode(0o777).expect("it is ours");
        let (ran, host) = run_of(folder, ROOM, CHAIN).await;
        assert_eq!((taken(&ran), counts(&host)), (expected, (0, 4)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_has_bounds() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = &folder.path().join("results");
    let steps = |text: &str| {
        format!(
            "
- {{id: give1, type: Give/v1, spec: {{times: 5000, text: '{text}'}}}}
- {{id: rot1, type: Rot13/v1alpha1, spec: {{data: '${{give1.output.data}}'}}}}
- {{id: take1, type: Take/v1, spec: {{data: '${{rot1.output.data}}'}}}}
"
        )
    };
    let total = || -> u64 {
        let sizes = files(folder, "")
            .into_iter()
            .map(|path| path.metadata().expect("a file").len());
        sizes.sum()
    };
    // Too much for the room: nothing is kept of it, and nothing is left of the attempt.
    let (ran, _) = run_of(folder, 20_000, &steps("0123456789")).await;
    assert_eq!(ran.failures(), [] as [&str; 0]);
    assert!(files(folder, ".bytes").is_empty());
    assert_eq!(files(folder, "").len(), files(folder, ".json").len());
    // What was used last stays.
    for text in [
        "a123456789",
        "b123456789",
        "c123456789",
        "a123456789",
        "d123456789",
        "e123456789",
    ] {
        let (ran, _) = run_of(folder, 160_000, &steps(text)).await;
        assert_eq!(ran.failures(), [] as [&str; 0]);
        assert!(total() <= 160_000 + 52_000, "{text}: {}", total());
    }
    for text in ["a123456789", "d123456789", "e123456789"] {
        let (_, host) = run_of(folder, 160_000, &steps(text)).await;
        assert_eq!(host.usage().made(), 0, "{text}");
    }
    let (_, host) = run_of(folder, 160_000, &steps("b123456789")).await;
    assert!(host.usage().made() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_whole_is_kept() {
    for (steps, failures) in [
        // A reader that leaves.
        (
            "- {id: rot1, type: Rot13/v1alpha1, spec: {data: '${give1.output.data}'}}\n- {id: take1, type: Take/v1, spec: {data: '${rot1.output.data}', leavesAt: 5000}}",
            0,
        ),
        // Guests that fail in the middle, or do not keep their word.
        (
            "- {id: bad1, type: Half/v1, spec: {data: '${give1.output.data}'}}\n- {id: take1, type: Take/v1, spec: {data: '${bad1.output.data}'}}",
            1,
        ),
        (
            "- {id: bad1, type: TooShort/v1, spec: {data: '${give1.output.data}'}}\n- {id: take1, type: Take/v1, spec: {data: '${bad1.output.data}'}}",
            1,
        ),
        (
            "- {id: bad1, type: WrongDigest/v1, spec: {data: '${give1.output.data}'}}\n- {id: take1, type: Take/v1, spec: {data: '${bad1.output.data}'}}",
            1,
        ),
        (
            "- {id: bad1, type: NotFitting/v1, spec: {data: '${give1.output.data}'}}",
            1,
        ),
        // A source that breaks.
        (
            "- {id: give2, type: Give/v1, spec: {times: 100000, breaksAt: 70000}}\n- {id: rot1, type: Rot13/v1alpha1, spec: {data: '${give2.output.data}'}}",
            1,
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = &folder.path().join("results");
        let steps = format!("- {{id: give1, type: Give/v1, spec: {{times: 100000}}}}\n{steps}\n");
        let mut told = Vec::new();
        for _ in 0..2 {
            let (ran, host) = run_of(folder, ROOM, &steps).await;
            assert_eq!(
                ran.failures().len(),
                failures,
                "{steps}: {:?}",
                ran.failures()
            );
            told.push(ran.failures());
            drop(ran);
            for _ in 0..200 {
                if host.usage().instances() == 0 {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            assert!(files(folder, ".bytes").is_empty(), "{steps}");
            assert_eq!(
                files(folder, "").len(),
                files(folder, ".json").len(),
                "{steps}"
            );
        }
        assert_eq!(told[0], told[1], "{steps}");
    }
}
