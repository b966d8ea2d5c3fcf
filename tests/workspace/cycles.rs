//! Attempts that end or are killed anywhere, worktrees that are cleaned anywhere: whatever was written is still reachable.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;

use crate::support::{Systole, eventually};
use crate::{Repository, SOON, clean, host, worktrees};

const CYCLES: usize = 200;

/// How a tree can be dirty. `$1` is what must not get lost.
const WAYS: [&str; 6] = [
    "echo $1 > new.txt",
    "echo $1 >> a.txt",
    "mkdir -p d/e; echo $1 > d/e/deep.txt; rm a.txt",
    "echo $1 > staged.txt; git add staged.txt; echo other > staged.txt",
    "echo $1 > c.txt; git add c.txt; git -c user.name=x -c user.email=x commit -qm c; echo more > c.txt",
    "echo $1 > c.txt; git add c.txt; git -c user.name=x -c user.email=x commit -qm c; git reset -q --hard HEAD~1",
];

#[test]
fn every_change_of_two_hundred_is_still_reachable() {
    let (_database, host) = host();
    let repository = Repository::new();
    let (next, seed) = (AtomicUsize::new(0), 7);
    let written = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (host, repository, next, written) = (&host, &repository, &next, &written);
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed + thread);
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= CYCLES {
                        return;
                    }
                    if cycle(host, repository, n, &mut random) {
                        written.lock().unwrap().push(n);
                    }
                }
            });
        }
    });
    let written = written.into_inner().unwrap();
    assert!(written.len() > CYCLES * 3 / 4, "only {} had anything to lose", written.len());
    // Trees of the last ones to be killed may take a moment to be gone.
    eventually("all are gone", Duration::from_secs(60), || {
        clean(&host, &[]);
        worktrees(&host).is_empty().then_some(())
    });
    let everything = repository.everything();
    let lost: Vec<usize> = written.into_iter().filter(|n| !everything.contains(&marker(*n))).collect();
    assert!(lost.is_empty(), "lost with seed {seed}: {lost:?}");
    assert_eq!(repository.git(&["worktree", "list"]).lines().count(), 1);
}

fn marker(n: usize) -> String {
    format!("change-{n}-of-many")
}

/// False if it was killed before it could write anything.
fn cycle(host: &Systole, repository: &Repository, n: usize, random: &mut StdRng) -> bool {
    let (run, way) = (format!("c{n}"), WAYS[random.random_range(0..WAYS.len())]);
    let script = format!("set -e; set -- {}; {way}; echo written; test {} = 0 || sleep 600", marker(n), n % 2);
    let flags = ["--workspace-repo", repository.text(), "--", "sh", "-c", &script];
    let mut running = host.start(&[&["run", &run][..], &flags].concat());
    if n.is_multiple_of(10) {
        // While its worktree is made.
        std::thread::sleep(Duration::from_millis(random.random_range(50..250)));
        running.signal(Signal::KILL);
        running.wait(SOON);
        return running.output().contains("written");
    }
    running.wait_for_output("written");
    if n.is_multiple_of(2) && random.random_range(0..3) > 0 {
        assert_eq!(running.wait(SOON).code(), Some(0), "{}", running.errors());
    } else {
        // One that is about to end by itself may be killed while it keeps its work.
        std::thread::sleep(Duration::from_millis(random.random_range(0..40)));
        running.signal(Signal::KILL);
        running.wait(SOON);
    }
    match random.random_range(0..6) {
        0 => drop(clean(host, &[])),
        1 => {
            let mut cleaner = host.start(&["workspace", "clean"]);
            std::thread::sleep(Duration::from_millis(random.random_range(0..80)));
            cleaner.signal(Signal::KILL);
            cleaner.wait(SOON);
        }
        _ => {}
    }
    true
}
