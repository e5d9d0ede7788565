//! In which order tasks run: the worker's turn stands on it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::task::Poll;

use skein::shell::driver::Driver;
use skein::shell::event::Event;
use skein::shell::ready::{Breath, Ready, fairly};
use skein::shell::sys;

use crate::on_each_driver;

type Log = Rc<RefCell<Vec<&'static str>>>;

/// Ends when all that is ready has run, a few times over.
async fn settle(breath: &Breath) {
    for _ in 0..8 {
        breath.take().await;
    }
}

fn readable(stream: &UnixStream) -> Ready {
    Ready::new(OwnedFd::from(stream.try_clone().unwrap())).unwrap()
}

/// As many as one reap brings for certain: since Linux 6.13 io_uring hands a waiter about twenty completions at once.
const REAPED_TOGETHER: usize = 16;

#[test]
fn whom_a_reader_wakes_runs_after_all_readers_of_the_same_reap() {
    on_each_driver(|_| async {
        let log = Log::default();
        let flush = Rc::new(Event::default());
        let breath = Breath::new().unwrap();
        let pairs: Vec<_> = (0..REAPED_TOGETHER).map(|_| UnixStream::pair().unwrap()).collect();
        for (_, far) in &pairs {
            let (log, flush, ready) = (log.clone(), flush.clone(), readable(far));
            drop(monoio::spawn(async move {
                loop {
                    ready.readable().await.unwrap();
                    let mut byte = [0];
                    sys::recv(ready.descriptor(), &mut byte).unwrap();
                    log.borrow_mut().push("read");
                    flush.set();
                }
            }));
        }
        let flushes = log.clone();
        drop(monoio::spawn(async move {
            loop {
                flush.wait().await;
                flushes.borrow_mut().push("flush");
            }
        }));
        settle(&breath).await;
        for _ in 0..20 {
            log.borrow_mut().clear();
            for (near, _) in &pairs {
                sys::send(std::os::fd::AsRawFd::as_raw_fd(near), b"x").unwrap();
            }
            settle(&breath).await;
            let mut want = vec!["read"; pairs.len()];
            want.push("flush");
            assert_eq!(*log.borrow(), want);
        }
    });
}

#[test]
fn a_task_that_wakes_itself_goes_to_the_front() {
    on_each_driver(|_| async {
        let log = Log::default();
        let (first, second) = (log.clone(), log.clone());
        let polls = Cell::new(0);
        let selfish = monoio::spawn(poll_fn(move |cx| {
            first.borrow_mut().push("selfish");
            polls.set(polls.get() + 1);
            if polls.get() == 3 {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let patient = monoio::spawn(async move { second.borrow_mut().push("patient") });
        selfish.await;
        patient.await;
        assert_eq!(*log.borrow(), ["selfish", "selfish", "selfish", "patient"], "this is why nobody may");
    });
}

#[test]
fn who_takes_a_breath_lets_others_be_heard() {
    on_each_driver(|_| async {
        let breath = Rc::new(Breath::new().unwrap());
        let (near, far) = UnixStream::pair().unwrap();
        let heard = Rc::new(Cell::new(false));
        let (set, ready) = (heard.clone(), readable(&far));
        drop(monoio::spawn(async move {
            ready.readable().await.unwrap();
            set.set(true);
        }));
        settle(&breath).await;
        // From another thread, while this task never waits for anything else than its breath.
        let writer = std::thread::spawn(move || {
            std::thread::park_timeout(std::time::Duration::from_millis(20));
            sys::send(std::os::fd::AsRawFd::as_raw_fd(&near), b"x").unwrap();
            near
        });
        let mut breaths = 0u64;
        while !heard.get() {
            breath.take().await;
            breaths += 1;
            assert!(breaths < 100_000_000, "nobody else is heard");
        }
        writer.join().unwrap();
        assert!(breaths > 10, "it went on in the meantime");
    });
}

/// Going to the back of the queue is not enough: this is why `Breath` waits for a descriptor.
#[test]
fn while_the_queue_is_not_empty_io_uring_reaps_nothing() {
    on_each_driver(|driver| async move {
        if driver != Driver::Uring {
            return;
        }
        let breath = Breath::new().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let heard = Rc::new(Cell::new(false));
        let (set, ready) = (heard.clone(), readable(&far));
        drop(monoio::spawn(async move {
            ready.readable().await.unwrap();
            set.set(true);
        }));
        settle(&breath).await;
        sys::send(std::os::fd::AsRawFd::as_raw_fd(&near), b"x").unwrap();
        for _ in 0..1000 {
            let mut asked = false;
            poll_fn(|cx| {
                if std::mem::replace(&mut asked, true) {
                    return Poll::Ready(());
                }
                let waker = cx.waker().clone();
                drop(monoio::spawn(async move { waker.wake() }));
                Poll::Pending
            })
            .await;
        }
        assert!(!heard.get(), "then `Breath` may be simpler");
        settle(&breath).await;
        assert!(heard.get());
    });
}

#[test]
fn a_socket_that_is_never_empty_does_not_keep_others_from_their_turn() {
    on_each_driver(|_| async {
        let breath = Rc::new(Breath::new().unwrap());
        let (busy, _keep) = UnixStream::pair().unwrap();
        sys::send(std::os::fd::AsRawFd::as_raw_fd(&_keep), b"never read").unwrap();
        let turns = Rc::new(Cell::new(0u64));
        let (count, pause, ready) = (turns.clone(), breath.clone(), readable(&busy));
        drop(monoio::spawn(async move {
            loop {
                fairly(&pause, ready.readable()).await.unwrap();
                count.set(count.get() + 1);
            }
        }));
        let (near, far) = UnixStream::pair().unwrap();
        let ready = readable(&far);
        for _ in 0..100 {
            let before = turns.get();
            sys::send(std::os::fd::AsRawFd::as_raw_fd(&near), b"x").unwrap();
            fairly(&breath, ready.readable()).await.unwrap();
            sys::recv(ready.descriptor(), &mut [0]).unwrap();
            assert!(
                turns.get() - before < 100,
                "the busy one had {} turns before this one had its",
                turns.get() - before
            );
        }
        assert!(turns.get() > 50, "and it is not starved either");
    });
}
