//! A disk that fails on request, in debug builds only: how tests end the program at a named point, or fill its disk.
//!
//! *Invariant*: a release build has none of this, whatever its environment says.

use ocm_content::Disk;

/// What tests say about the disk: `ACTION WHEN ACT PATH N`. At the N-th ACT (`rename`; `any`) on a path that contains PATH
/// (`*`: any; with `$` behind it, ends in it), `before` or `after` it, the process is killed (`kill`) or the system's error of that number is answered.
#[cfg(debug_assertions)]
const VARIABLE: &str = "OCM_TEST_DISK";

/// The disk of this process.
#[cfg(not(debug_assertions))]
pub(crate) fn disk() -> Disk {
    Disk::default()
}

/// The disk of this process.
///
/// # Panics
/// When a test says something that makes no sense.
#[cfg(debug_assertions)]
pub(crate) fn disk() -> Disk {
    match std::env::var(VARIABLE) {
        Ok(text) => Disk::behind(std::sync::Arc::new(failing::Failing::parse(&text))),
        Err(_) => Disk::default(),
    }
}

#[cfg(debug_assertions)]
mod failing {
    use std::io;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    use ocm_content::disk::{Act, Gate};

    #[derive(Debug)]
    pub(super) struct Failing {
        /// The system's error; without one the process ends.
        error: Option<i32>,
        is_before: bool,
        act: String,
        path: String,
        number: u64,
        seen: AtomicU64,
    }

    impl Failing {
        pub(super) fn parse(text: &str) -> Self {
            let words: Vec<&str> = text.split(' ').collect();
            let [action, when, act, path, number] = words[..] else {
                panic!("`{text}` is not ACTION WHEN ACT PATH N");
            };
            let is_known = act == "any" || Act::ALL.iter().any(|known| known.as_str() == act);
            assert!(is_known, "there is no act `{act}`");
            Self {
                error: (action != "kill").then(|| action.parse().expect("the number of an error")),
                is_before: when == "before",
                act: act.to_owned(),
                path: path.replace('*', ""),
                number: number.parse().expect("a number"),
                seen: AtomicU64::new(0),
            }
        }

        fn is_due(&self, act: Act, path: &Path) -> bool {
            let path = path.to_string_lossy();
            let is_there = match self.path.strip_suffix('$') {
                Some(end) => path.ends_with(end),
                None => path.contains(&self.path),
            };
            let matches = (self.act == "any" || self.act == act.as_str()) && is_there;
            matches && self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.number
        }

        fn fail(&self) -> io::Result<()> {
            match self.error {
                Some(number) => Err(io::Error::from_raw_os_error(number)),
                None => end(),
            }
        }
    }

    impl Gate for Failing {
        fn before(&self, act: Act, path: &Path) -> io::Result<()> {
            match self.is_before && self.is_due(act, path) {
                true => self.fail(),
                false => Ok(()),
            }
        }

        fn after(&self, act: Act, path: &Path) {
            if !self.is_before && self.is_due(act, path) {
                let _ = self.fail();
            }
        }
    }

    /// Ends the process as SIGKILL does: nothing of ours runs any more.
    fn end() -> ! {
        #[cfg(unix)]
        {
            use rustix::process::{Signal, getpid, kill_process};
            let _ = kill_process(getpid(), Signal::KILL);
        }
        loop {
            std::thread::park();
        }
    }
}
