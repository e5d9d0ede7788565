//! One worker wakes another.

use std::sync::Arc;
use std::time::Duration;

use skein::shell::clock;
use skein::shell::mailbox::Mailboxes;
use skein::shell::ready::{Breath, Ready};
use skein::shell::timer::Timer;

use crate::on_each_driver;

#[test]
fn mail_from_another_thread_wakes_a_sleeping_runtime_every_time() {
    on_each_driver(|_| async {
        const ROUNDS: u32 = 2000;
        let mail = Arc::new(Mailboxes::<u32>::new(2).unwrap());
        let there = mail.clone();
        // It answers each piece, so that both sides fall asleep over and over.
        let other = std::thread::spawn(move || {
            let bell = there.bell(1).descriptor().unwrap();
            let mut got = 0;
            while got < ROUNDS {
                there.collect(1, 64, |_, n| {
                    got += 1;
                    there.post(1, 0, n).unwrap();
                });
                there.bell(0).ring();
                if there.bell(1).try_sleep(|| there.is_empty(1)) {
                    if got < ROUNDS {
                        assert!(skein::shell::sys::wait_readable(&bell, Some(Duration::from_secs(20))).unwrap());
                    }
                    there.bell(1).wake_up();
                }
            }
        });
        let bell = Ready::new(mail.bell(0).descriptor().unwrap()).unwrap();
        for n in 0..ROUNDS {
            mail.post(0, 1, n).unwrap();
            mail.bell(1).ring();
            let mut answer = None;
            while answer.is_none() {
                mail.collect(0, 64, |_, n| answer = Some(n));
                if answer.is_none() && mail.bell(0).try_sleep(|| mail.is_empty(0)) {
                    bell.readable().await.unwrap();
                    mail.bell(0).wake_up();
                }
            }
            assert_eq!(answer, Some(n));
        }
        other.join().unwrap();
    });
}

#[test]
fn a_timer_that_is_set_earlier_fires_earlier() {
    on_each_driver(|_| async {
        let timer = Timer::new().unwrap();
        let start = clock::mono();
        timer.at_latest(start + Duration::from_secs(60));
        timer.at_latest(start + Duration::from_millis(30));
        timer.at_latest(start + Duration::from_secs(90));
        timer.fired().await.unwrap();
        let took = clock::mono().since(start);
        assert!(took >= Duration::from_millis(30) && took < Duration::from_secs(10), "{took:?}");
        // While somebody waits, too.
        let timer = std::rc::Rc::new(timer);
        let start = clock::mono();
        timer.at_latest(start + Duration::from_secs(60));
        let waiting = timer.clone();
        let fired = monoio::spawn(async move { waiting.fired().await.unwrap() });
        Breath::new().unwrap().take().await;
        timer.at_latest(start + Duration::from_millis(5));
        fired.await;
        assert!(clock::mono().since(start) < Duration::from_secs(10));
    });
}
