use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use futures::{StreamExt, stream};
use proptest::prelude::*;

use super::*;
use crate::limits::LimitsConfig;
use crate::memory::MemoryStores;
use crate::store::Stores;

/// Gives its bytes in chunks and pauses before each; counts its openings.
#[derive(Clone, Debug)]
struct Toy {
    bytes: Bytes,
    chunk: usize,
    access: Access,
    /// Fails at this offset, every time.
    fails_at: Option<usize>,
    opened: Arc<AtomicUsize>,
}

impl Toy {
    fn new(size: usize, chunk: usize, access: Access) -> Self {
        Self {
            bytes: (0..size).map(|n| (n % 251) as u8).collect(),
            chunk,
            access,
            fails_at: None,
            opened: Arc::default(),
        }
    }

    fn openings(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    fn blob(&self) -> Blob {
        Blob::new("text/plain", Arc::new(self.clone()))
            .expect_content(Digest::sha256(&self.bytes), self.bytes.len() as u64)
    }

    fn shared(&self, readers: usize, limits: &Arc<Limits>) -> Blob {
        match share(self.blob().into(), readers, limits) {
            Content::Blob(blob) => blob,
            Content::Artifact(_) => panic!("a blob stays a blob"),
        }
    }
}

impl Source for Toy {
    fn open(&self, offset: u64) -> BoxFuture<'static, Result<ByteStream>> {
        let this = self.clone();
        Box::pin(async move {
            let openings = this.opened.fetch_add(1, Ordering::SeqCst);
            if this.access == Access::Once && openings > 0 {
                return Err(Error::new(ErrorKind::Consumed, "opened again"));
            }
            let stream = stream::try_unfold(offset as usize, move |at| {
                let this = this.clone();
                async move {
                    tokio::task::yield_now().await;
                    if this.fails_at.is_some_and(|limit| at >= limit) {
                        return Err(Error::new(ErrorKind::Unavailable, "cut"));
                    }
                    let end = (at + this.chunk).min(this.bytes.len());
                    Ok((at < end).then(|| (this.bytes.slice(at..end), end)))
                }
            });
            Ok(Box::pin(stream) as ByteStream)
        })
    }

    fn access(&self) -> Access {
        self.access
    }

    fn hosts(&self) -> Vec<Host> {
        vec![Host::new("source.example")]
    }
}

fn limits(window: u64, spool: u64) -> Arc<Limits> {
    Limits::new(LimitsConfig {
        window,
        spool,
        temp_folder: Some(std::env::temp_dir()),
        ..LimitsConfig::default()
    })
}

fn check_freed(limits: &Limits) {
    assert_eq!(limits.window().used(), 0, "window is free again");
    assert_eq!(limits.spool().used(), 0, "temporary bytes are free again");
    assert!(limits.window().peak() <= limits.window().limit());
}

#[tokio::test]
async fn four_equal_readers_open_the_source_once() {
    for access in [Access::Reopenable, Access::Once] {
        let limits = limits(64 << 10, 0);
        let toy = Toy::new(1 << 20, 8 << 10, access);
        let shared = toy.shared(4, &limits);
        let all = join_all((0..4).map(|_| shared.read(1 << 20))).await;
        for bytes in all {
            assert!(bytes.unwrap() == toy.bytes);
        }
        assert_eq!(toy.openings(), 1);
        check_freed(&limits);
    }
}

#[tokio::test]
async fn readers_of_one_read_do_not_wait_for_slots_of_its_host() {
    let limits = Limits::new(LimitsConfig {
        transfers_per_host: 1,
        small_transfers_per_host: 1,
        window: 64 << 10,
        ..LimitsConfig::default()
    });
    let toy = Toy::new(1 << 20, 8 << 10, Access::Reopenable);
    let shared = toy.shared(4, &limits);
    let read = || async {
        let _slots = limits.transfer(&shared.hosts()).await;
        shared.read(1 << 20).await
    };
    for bytes in join_all((0..4).map(|_| read())).await {
        assert!(bytes.unwrap() == toy.bytes);
    }
    assert_eq!(toy.openings(), 1);
    check_freed(&limits);
}

#[tokio::test]
async fn a_slow_reader_is_detached_and_still_right() {
    let limits = limits(100_000, 0);
    let toy = Toy::new(1 << 20, 10_000, Access::Reopenable);
    let shared = toy.shared(3, &limits);
    let mut slow = shared.open().await.unwrap();
    let mut read = slow.next().await.unwrap().unwrap().to_vec();
    assert!(shared.read(1 << 20).await.unwrap() == toy.bytes);
    assert_eq!(toy.openings(), 1);
    while let Some(chunk) = slow.next().await {
        read.extend_from_slice(&chunk.unwrap());
    }
    assert!(read == toy.bytes);
    assert_eq!(toy.openings(), 2);
    // One that comes when the beginning is gone reads on its own.
    assert!(shared.read(1 << 20).await.unwrap() == toy.bytes);
    assert_eq!(toy.openings(), 3);
    check_freed(&limits);
}

#[tokio::test]
async fn a_once_source_waits_in_a_file_for_a_late_reader() {
    let limits = limits(50_000, 1 << 30);
    let toy = Toy::new(1 << 20, 10_000, Access::Once);
    let shared = toy.shared(2, &limits);
    assert!(shared.read(1 << 20).await.unwrap() == toy.bytes);
    assert_eq!(limits.window().used(), 50_000);
    assert_eq!(limits.spool().used(), (1 << 20) - 50_000);
    assert!(shared.read(1 << 20).await.unwrap() == toy.bytes);
    assert_eq!(toy.openings(), 1);
    check_freed(&limits);
    let third = shared.read(1 << 20).await.unwrap_err();
    assert_eq!(third.kind(), ErrorKind::Consumed);
}

#[tokio::test]
async fn a_once_source_beyond_the_budget_is_an_error_for_all_and_not_a_wait() {
    let limits = limits(50_000, 100_000);
    let toy = Toy::new(1 << 20, 10_000, Access::Once);
    let shared = toy.shared(2, &limits);
    for _ in 0..2 {
        let error = shared.read(1 << 20).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    }
    drop(shared);
    check_freed(&limits);
}

#[tokio::test]
async fn readers_that_leave_or_never_come_hold_nothing_back() {
    for access in [Access::Reopenable, Access::Once] {
        let limits = limits(1 << 20, 1 << 20);
        let toy = Toy::new(500_000, 10_000, access);
        let shared = toy.shared(3, &limits);
        let mut leaves = shared.open().await.unwrap();
        leaves.next().await.unwrap().unwrap();
        let stays = shared.open().await.unwrap();
        drop(leaves);
        let read: Vec<_> = stays.map(Result::unwrap).collect().await;
        assert!(read.concat() == toy.bytes);
        assert_eq!(toy.openings(), 1);
        // Kept for the third.
        assert_eq!(limits.window().used(), 500_000);
        drop(shared);
        check_freed(&limits);
    }
}

#[tokio::test]
async fn bytes_kept_for_nobody_give_way_to_another_tee() {
    let limits = limits(95_000, 0);
    let (first, second) = (
        Toy::new(90_000, 10_000, Access::Reopenable),
        Toy::new(90_000, 10_000, Access::Reopenable),
    );
    let kept = first.shared(2, &limits);
    kept.read(1 << 20).await.unwrap();
    assert_eq!(limits.window().used(), 90_000);
    let other = second.shared(2, &limits);
    let all = join_all([other.read(1 << 20), other.read(1 << 20)]).await;
    assert!(all.into_iter().all(|read| read.is_ok()));
    assert_eq!(second.openings(), 1);
    assert!(kept.read(1 << 20).await.unwrap() == first.bytes);
    assert_eq!(first.openings(), 2);
    check_freed(&limits);
}

#[tokio::test]
async fn a_source_error_reaches_all_and_a_new_opening_tries_again() {
    for access in [Access::Reopenable, Access::Once] {
        let limits = limits(1 << 20, 0);
        let mut toy = Toy::new(100_000, 10_000, access);
        toy.fails_at = Some(50_000);
        let shared = toy.shared(3, &limits);
        let all = join_all([shared.read(1 << 20), shared.read(1 << 20)]).await;
        for read in all {
            assert_eq!(read.unwrap_err().kind(), ErrorKind::Unavailable);
        }
        assert_eq!(toy.openings(), 1);
        let late = shared.read(1 << 20).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Unavailable);
        assert_eq!(toy.openings(), if access == Access::Once { 1 } else { 2 });
        drop(shared);
        check_freed(&limits);
    }
}

#[tokio::test]
async fn a_read_resumes_at_an_offset() {
    let limits = limits(100_000, 0);
    let toy = Toy::new(300_000, 10_000, Access::Reopenable);
    let shared = toy.shared(2, &limits);
    let mut first = shared.open().await.unwrap();
    for _ in 0..5 {
        first.next().await.unwrap().unwrap();
    }
    for offset in [30_000_u64, 250_000] {
        let rest = shared.open_at(offset).await.unwrap();
        let rest: Vec<_> = rest.map(Result::unwrap).collect().await;
        assert!(rest.concat() == toy.bytes[offset as usize..]);
    }
}

/// Two steps that each read both of two shared contents, in opposite order, one slot on the one host.
#[tokio::test]
async fn two_tees_in_opposite_order_with_one_slot_do_not_block() {
    let limits = Limits::new(LimitsConfig {
        window: 20_000,
        transfers_per_host: 1,
        small_transfers_per_host: 1,
        temp_folder: Some(std::env::temp_dir()),
        ..LimitsConfig::default()
    });
    let host = [Host::new("one.example")];
    let (a, b) = (
        Toy::new(300_000, 10_000, Access::Once),
        Toy::new(300_000, 10_000, Access::Reopenable),
    );
    let (left, right) = (a.shared(2, &limits), b.shared(2, &limits));
    let step = |blobs: [Blob; 2]| {
        let (limits, host) = (limits.clone(), host.clone());
        async move {
            for blob in blobs {
                let _slot = limits.transfer(&host).await;
                blob.read(1 << 20).await.unwrap();
            }
        }
    };
    let both = join_all([step([left.clone(), right.clone()]), step([right, left])]);
    tokio::time::timeout(Duration::from_secs(60), both)
        .await
        .expect("no reader waits for another");
}

#[tokio::test]
async fn the_parts_of_an_artifact_are_shared_too() {
    let limits = limits(4 << 20, 0);
    let store = MemoryStores::new().store("app").unwrap();
    let config = Blob::from_bytes("application/x-config", "{}");
    let layer = Blob::from_bytes("application/x-layer", vec![7; 3 << 20]);
    let mut links = Vec::new();
    for blob in [&config, &layer] {
        links.push(store.push(blob, &[]).await.unwrap().descriptor);
    }
    let manifest = ocm_specs::oci::Manifest::image(links[0].clone(), vec![links[1].clone()]);
    let raw = RawManifest::write(&manifest);
    store.put_manifest(&raw, Some("1")).await.unwrap();
    let content = Content::Artifact(Artifact::Stored(Stored {
        root: raw.descriptor(),
        store,
        tag: None,
    }));
    let Content::Artifact(artifact) = share(content, 3, &limits) else {
        panic!("an artifact stays one");
    };
    let copier = crate::Copier::new(limits.clone(), crate::Locations::new());
    let targets: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|name| MemoryStores::with_limit(*name, 1 << 30).store("x").unwrap())
        .collect();
    let meter = crate::Meter::new();
    let copies = join_all(
        targets
            .iter()
            .map(|to| copier.copy(&artifact, to, Some("1"))),
    );
    for copied in meter.clone().scope(copies).await {
        copied.unwrap();
    }
    // The config is in memory in one piece anyway.
    assert_eq!(meter.snapshot().reads[&links[1].digest], 1);
    drop(artifact);
    check_freed(&limits);
}

#[tokio::test]
async fn a_read_counts_for_the_step_that_asked_whoever_polls() {
    let limits = limits(4 << 20, 0);
    let store = MemoryStores::with_limit("source", 1 << 30)
        .store("x")
        .unwrap();
    let layer = Blob::from_bytes("application/x-layer", vec![7; 3 << 20]);
    let link = store.push(&layer, &[]).await.unwrap().descriptor;
    let Content::Blob(shared) = share(Content::Blob(store.fetch(&link)), 2, &limits) else {
        panic!("a blob stays a blob");
    };
    let meter = crate::Meter::new();
    let opened = meter
        .clone()
        .scope(join_all([shared.open(), shared.open()]));
    for stream in opened.await {
        // As a connection's task does it.
        let read = tokio::spawn(stream.unwrap().count());
        assert_ne!(read.await.unwrap(), 0);
    }
    assert_eq!(meter.snapshot().reads[&link.digest], 1);
    drop(shared);
    check_freed(&limits);
}

/// Readers in tasks of their own, some of which are aborted while they wait: the others are woken.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_in_many_tasks_all_get_on() {
    for round in 0..150 {
        let access = [Access::Reopenable, Access::Once][round % 2];
        let limits = limits([0, 3_000, 1 << 20][round % 3], 1 << 20);
        let toy = Toy::new(100_000, 1_000, access);
        let shared = toy.shared(5, &limits);
        let mut tasks = tokio::task::JoinSet::new();
        let doomed = shared.clone();
        let abort = tasks.spawn(async move { doomed.read(1 << 20).await });
        for _ in 0..4 {
            let blob = shared.clone();
            tasks.spawn(async move { blob.read(1 << 20).await });
        }
        for _ in 0..round {
            tokio::task::yield_now().await;
        }
        abort.abort();
        while let Some(joined) = tokio::time::timeout(Duration::from_secs(60), tasks.join_next())
            .await
            .expect("every reader is woken")
        {
            match joined {
                Ok(read) => assert!(read.unwrap() == toy.bytes),
                Err(error) => assert!(error.is_cancelled(), "{error}"),
            }
        }
        if access == Access::Once {
            assert_eq!(toy.openings(), 1);
        }
        drop(shared);
        check_freed(&limits);
    }
}

#[derive(Clone, Debug)]
enum Move {
    Open(u64),
    Pull(usize),
    Drop(usize),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        2 => Just(Move::Open(0)),
        1 => (0..3_000_u64).prop_map(Move::Open),
        8 => (0..6_usize).prop_map(Move::Pull),
        1 => (0..6_usize).prop_map(Move::Drop),
    ];
    prop::collection::vec(one, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        rng_seed: prop::test_runner::RngSeed::Fixed(42),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever the order: right bytes, no wait for another reader, no budget exceeded or leaked.
    #[test]
    fn any_interleaving_gives_the_right_bytes(
        moves in moves(),
        size in 0..3_000_usize,
        chunk in 1..400_usize,
        window in 0..1_500_u64,
        readers in 2..5_usize,
        once in any::<bool>(),
    ) {
        let access = if once { Access::Once } else { Access::Reopenable };
        let toy = Toy::new(size, chunk, access);
        let limits = limits(window, 1 << 20);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let shared = toy.shared(readers, &limits);
            let mut open: Vec<(usize, ByteStream)> = Vec::new();
            let mut started = 0;
            for step in moves {
                match step {
                    Move::Open(offset) => {
                        let offset = if once { 0 } else { offset.min(size as u64) };
                        if once && started == readers {
                            continue;
                        }
                        started += usize::from(offset == 0);
                        open.push((offset as usize, shared.open_at(offset).await.unwrap()));
                    }
                    Move::Pull(which) if which < open.len() => {
                        let (at, stream) = &mut open[which];
                        let next = tokio::time::timeout(Duration::from_secs(30), stream.next());
                        match next.await.expect("one reader alone gets on") {
                            Some(bytes) => {
                                let bytes = bytes.unwrap();
                                assert_eq!(bytes, toy.bytes.slice(*at..*at + bytes.len()));
                                assert!(!bytes.is_empty());
                                *at += bytes.len();
                            }
                            None => assert_eq!(*at, size),
                        }
                    }
                    Move::Drop(which) if which < open.len() => {
                        drop(open.swap_remove(which));
                    }
                    Move::Pull(_) | Move::Drop(_) => {}
                }
                assert!(limits.window().used() <= window);
            }
            for (at, stream) in open {
                let rest: Vec<_> = stream.map(Result::unwrap).collect().await;
                assert!(rest.concat() == toy.bytes[at..]);
            }
            if once {
                assert!(toy.openings() <= 1);
            }
            drop(shared);
        });
        check_freed(&limits);
    }
}
