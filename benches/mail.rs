//! One hop of mail between two workers: post and collect while the receiver is awake, and a round trip between two threads that
//! sleep in between.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use skein::shell::mailbox::Mailboxes;

fn awake(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mail");
    group.throughput(Throughput::Elements(64));
    let mailboxes: Mailboxes<[u64; 8]> = Mailboxes::new(2).expect("eventfds");
    group.bench_function("64 posted and collected, receiver awake", |bencher| {
        bencher.iter(|| {
            for number in 0..64 {
                mailboxes.post(0, 1, [number; 8]).expect("room for 64");
            }
            mailboxes.bell(1).ring();
            let mut sum = 0;
            mailboxes.collect(1, 64, |_, mail| sum += mail[0]);
            sum
        });
    });
    group.finish();
}

/// Waits as a worker does: sleeps only when nothing is there, and reads its bell.
fn wait(mailboxes: &Mailboxes<u64>, of: u16, bell: &mut std::fs::File) -> u64 {
    loop {
        let mut got = None;
        mailboxes.collect(of, 1, |_, mail| got = Some(mail));
        if let Some(mail) = got {
            return mail;
        }
        if mailboxes.bell(of).try_sleep(|| mailboxes.is_empty(of)) {
            let mut number = [0; 8];
            bell.read_exact(&mut number).expect("the bell gives its number");
            mailboxes.bell(of).wake_up();
        }
    }
}

fn asleep(criterion: &mut Criterion) {
    let mailboxes: Arc<Mailboxes<u64>> = Arc::new(Mailboxes::new(2).expect("eventfds"));
    let stop = Arc::new(AtomicBool::new(false));
    let echo = {
        let (mailboxes, stop) = (mailboxes.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut bell = blocking(&mailboxes, 1);
            loop {
                let mail = wait(&mailboxes, 1, &mut bell);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                mailboxes.post(1, 0, mail).expect("room for one");
                mailboxes.bell(0).ring();
            }
        })
    };
    let mut bell = blocking(&mailboxes, 0);
    criterion.bench_function("mail/round trip between two sleeping workers", |bencher| {
        bencher.iter(|| {
            mailboxes.post(0, 1, 1).expect("room for one");
            mailboxes.bell(1).ring();
            wait(&mailboxes, 0, &mut bell)
        });
    });
    stop.store(true, Ordering::Relaxed);
    mailboxes.post(0, 1, 0).expect("room for one");
    mailboxes.bell(1).ring();
    echo.join().expect("the echo thread ends by itself");
}

fn blocking(mailboxes: &Mailboxes<u64>, of: u16) -> std::fs::File {
    mailboxes.bell(of).descriptor().expect("a bell has a descriptor").into()
}

criterion_group!(benches, awake, asleep);
criterion_main!(benches);
