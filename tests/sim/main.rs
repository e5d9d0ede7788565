//! Whole clusters of real shards and mesh machines in one thread and in virtual time, from one seed.
//!
//! `world` replaces the shell: it carries bytes, mail and time to the shards, and everything that can go wrong on the
//! way does, as `plan` and `script` draw it from the seed. `model` says what clients must see. A broken promise is a panic;
//! the failure names the seed and shows what led to it. `SKEIN_SIM_SEED=7` replays one with its whole trace,
//! `SKEIN_SIM_SEEDS=100000` runs so many, `SKEIN_SIM_SECS=3600` runs for so long, `SKEIN_SIM_FIRST` is where to begin.
//!
//! Always true: nothing here reads a clock, the system's randomness or an address; the same seed gives the same trace.

mod client;
mod defect;
mod model;
mod net;
mod node;
mod plan;
mod queue;
mod scenarios;
mod script;
mod trace;
mod wires;
mod world;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use defect::Defect;
use script::{Outcome, run};
use trace::Detail;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static WHY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A broken promise, and what led to it.
struct Broken {
    seed: u64,
    why: String,
    tail: Vec<String>,
}

fn attempt(seed: u64, detail: Detail, defect: Option<Defect>) -> Result<Outcome, Broken> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if QUIET.get() {
                WHY.set(info.to_string());
            } else {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let mut trace = None;
    let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, detail, defect, &mut trace)));
    QUIET.set(false);
    outcome.map_err(|_| Broken {
        seed,
        why: WHY.take(),
        tail: trace.iter().flat_map(|trace| trace.tail().map(str::to_owned)).collect(),
    })
}

fn fail(broken: &Broken) -> ! {
    panic!(
        "seed {}: {}\nlast events:\n{}\nreplay it whole with SKEIN_SIM_SEED={} cargo test --test sim replay",
        broken.seed,
        broken.why,
        broken.tail.join("\n"),
        broken.seed
    );
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

#[test]
fn clients_see_what_the_model_predicts_whatever_happens() {
    let first = number("SKEIN_SIM_FIRST").unwrap_or(1);
    let seconds = number("SKEIN_SIM_SECS");
    let seeds = number("SKEIN_SIM_SEEDS").unwrap_or(if seconds.is_some() { u64::MAX / 2 } else { 3000 });
    println!("seeds {first} to {}", first + seeds - 1);
    #[expect(clippy::disallowed_methods, reason = "how long to go on is the caller's time, not the simulation's")]
    let clock = std::time::Instant::now();
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    type Total = (u64, u64, u64, u64, u64, u64, Option<Broken>);
    let totals: Vec<Total> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut total = (0, 0, 0, 0, 0, 0, None);
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        let late = seconds.is_some_and(|seconds| clock.elapsed().as_secs() >= seconds);
                        if seed >= first + seeds || stop.load(Ordering::Relaxed) || late {
                            return total;
                        }
                        match attempt(seed, Detail::Hash, None) {
                            Ok(outcome) => {
                                total.0 += 1;
                                total.1 += outcome.events;
                                total.2 += outcome.virtual_secs;
                                total.3 += outcome.deliveries;
                                total.4 += outcome.excused;
                                total.5 += outcome.told;
                            }
                            Err(broken) => {
                                stop.store(true, Ordering::Relaxed);
                                total.6 = Some(broken);
                                return total;
                            }
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker catches panics")).collect()
    });
    let mut sum = (0, 0, 0, 0, 0, 0);
    for total in &totals {
        sum = (sum.0 + total.0, sum.1 + total.1, sum.2 + total.2, sum.3 + total.3, sum.4 + total.4, sum.5 + total.5);
    }
    println!(
        "{} seeds in {:.1} s: {} events, {} virtual seconds, {} deliveries, {} losses with a counted gap, {} told",
        sum.0,
        clock.elapsed().as_secs_f64(),
        sum.1,
        sum.2,
        sum.3,
        sum.4,
        sum.5
    );
    let broken = totals.into_iter().filter_map(|total| total.6).min_by_key(|broken| broken.seed);
    if let Some(broken) = broken {
        // Once more, with words.
        match attempt(broken.seed, Detail::Tail, None) {
            Err(broken) => fail(&broken),
            Ok(_) => panic!("seed {}: {}: but not the second time", broken.seed, broken.why),
        }
    }
}

#[test]
fn a_seed_is_replayed_with_its_trace() {
    let Some(seed) = number("SKEIN_SIM_SEED") else { return };
    eprintln!("seed {seed}");
    // What the nodes say goes between the lines.
    let log = tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(std::io::stderr);
    log.with_max_level(tracing::Level::DEBUG).init();
    match attempt(seed, Detail::Print, None) {
        Ok(outcome) => eprintln!(
            "{} publications, {} deliveries, {} envelopes, {} refused, {} excused; healed in {} ms; trace {:016x}",
            outcome.publications,
            outcome.deliveries,
            outcome.envelopes,
            outcome.refused,
            outcome.excused,
            outcome.healed_millis,
            outcome.trace
        ),
        Err(broken) => panic!("seed {}: {}", broken.seed, broken.why),
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let mut traces = std::collections::BTreeSet::new();
    for seed in 1..=20 {
        let [first, second] =
            [(); 2].map(|()| attempt(seed, Detail::Hash, None).unwrap_or_else(|broken| fail(&broken)));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!(first.events, second.events);
        traces.insert(first.trace);
    }
    assert_eq!(traces.len(), 20, "different seeds give different traces");
}

/// How many seeds it takes until a defect is noticed, and by which words.
fn caught(defect: Defect, within: u64, words: &[&str]) {
    for seed in 1..=within {
        if let Err(broken) = attempt(seed, Detail::Hash, Some(defect)) {
            println!("{defect:?}: caught by seed {seed}: {}", broken.why);
            assert!(words.iter().any(|words| broken.why.contains(words)), "{}", broken.why);
            return;
        }
    }
    panic!("{defect:?} was not caught within {within} seeds");
}

#[test]
fn answering_before_the_barrier_is_caught() {
    caught(Defect::AnswerBeforeBarrier, 300, &["nobody has counted a gap"]);
    caught(Defect::ConfirmBeforeAsk, 300, &["nobody has counted a gap"]);
}

#[test]
fn forgetting_a_gap_is_caught() {
    caught(Defect::ForgetGap, 100, &["nobody has counted a gap"]);
    caught(Defect::LoseGapFrames, 1000, &["was never told"]);
    caught(Defect::LosePublications, 100, &["nobody has counted a gap"]);
    caught(Defect::LoseMail, 100, &["nobody has counted a gap"]);
}

#[test]
fn delivering_twice_is_caught() {
    caught(Defect::DeliverTwice, 100, &["came twice"]);
    caught(Defect::MailTwice, 100, &["came twice"]);
}

#[test]
fn sending_to_a_node_that_did_not_ask_is_caught() {
    caught(Defect::SendUnasked, 100, &["did not ask for it"]);
}

#[test]
fn losing_control_mail_is_caught() {
    caught(Defect::LoseControlMail, 100, &["waits for the answer", "keeps channels that nobody follows"]);
}
