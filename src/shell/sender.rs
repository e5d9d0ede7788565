//! How a turn's bytes leave: by the send ring, or by plain calls where there is none or the batch is small.
//!
//! Remembers which sockets are full, so that the worker waits for them.

use super::send_plain;
use super::send_ring::{SendRing, Told};
use crate::shard::outlet::{ConnectionKey, Outgoing, SendResult, Unsent};

/// Up to so many sockets, plain calls cost no more than a submission. Measured on loopback TCP with 160 bytes each, per send:
/// one socket 1.03 µs plainly, 1.42 by the ring; two 1.83 and 1.90; three 1.84 and 1.74; sixty-four 1.87 and 1.54.
const PLAIN_SOCKETS_MAX: usize = 2;

#[derive(Default)]
pub struct Sender {
    ring: Option<SendRing>,
    staging: Vec<u8>,
    full: Vec<ConnectionKey>,
}

impl Sender {
    pub fn with_ring(ring: SendRing) -> Self {
        Sender { ring: Some(ring), ..Sender::default() }
    }

    /// See `Outlet::send`.
    pub fn send<'a, I, S>(&mut self, mut batch: I, unsent: &mut Vec<Unsent>)
    where
        I: Iterator<Item = Outgoing<'a, S>>,
        S: Iterator<Item = &'a [u8]>,
    {
        let Sender { ring, staging, full } = self;
        let mut tell = |told: Told| {
            unsent.push(Unsent { index: told.index, result: told.result });
            if let SendResult::Short(_) = told.result {
                full.push(told.connection);
            }
        };
        let mut plainly = |index, outgoing: Outgoing<'a, S>| {
            let Outgoing { connection, socket, .. } = outgoing;
            if let Some(result) = send_plain::send(outgoing, staging) {
                tell(Told { index, connection, socket, result });
            }
        };
        match ring.as_mut().filter(|ring| !ring.is_broken()) {
            None => batch.enumerate().for_each(|(index, outgoing)| plainly(index, outgoing)),
            Some(ring) => {
                let mut few: smallvec::SmallVec<[Outgoing<'a, S>; PLAIN_SOCKETS_MAX]> = smallvec::SmallVec::new();
                few.extend(batch.by_ref().take(PLAIN_SOCKETS_MAX));
                match batch.next() {
                    None => few.into_iter().enumerate().for_each(|(index, outgoing)| plainly(index, outgoing)),
                    Some(next) => ring.send(few.into_iter().chain(std::iter::once(next)).chain(batch), tell),
                }
            }
        }
    }

    /// Sockets that did not take everything since this was last called.
    pub fn take_full(&mut self) -> Vec<ConnectionKey> {
        std::mem::take(&mut self.full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn connection(index: usize) -> ConnectionKey {
        ConnectionKey { index: index as u32, generation: 7 }
    }

    /// Sends each socket its slices, and gives what was not taken, in order.
    fn send(sender: &mut Sender, batch: &[(i32, Vec<&[u8]>)]) -> Vec<Unsent> {
        let mut unsent = Vec::new();
        let outgoing = batch.iter().enumerate().map(|(index, (socket, slices))| Outgoing {
            connection: connection(index),
            socket: *socket,
            bytes: slices.iter().map(|slice| slice.len()).sum(),
            slices: slices.iter().copied(),
        });
        sender.send(outgoing, &mut unsent);
        unsent.sort_by_key(|unsent| unsent.index);
        unsent
    }

    /// Both ways of sending, so that nobody can tell which it was.
    fn with_each(check: impl Fn(&mut Sender)) {
        check(&mut Sender::default());
        match SendRing::new() {
            Ok(ring) => check(&mut Sender::with_ring(ring)),
            Err(error) => eprintln!("not checked with the ring: {error}"),
        }
    }

    fn tcp_pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        (near, far)
    }

    fn received(from: &mut impl Read, bytes: usize) -> Vec<u8> {
        let mut got = vec![0; bytes];
        from.read_exact(&mut got).unwrap();
        got
    }

    #[test]
    fn every_socket_gets_its_slices_in_order_and_nobody_else_s() {
        with_each(|sender| {
            // More than one submission's worth of sockets, with every kind of message among them.
            let mut pairs: Vec<_> = (0..1500).map(|_| UnixStream::pair().unwrap()).collect();
            let long = vec![b'l'; 10_000];
            let texts: Vec<String> = (0..pairs.len()).map(|index| format!("{index};")).collect();
            let batch: Vec<(i32, Vec<&[u8]>)> = pairs
                .iter()
                .zip(&texts)
                .enumerate()
                .map(|(index, ((near, _), text))| {
                    let text = text.as_bytes();
                    let slices = match index % 4 {
                        0 => vec![text],
                        1 => vec![text, b"short", text],
                        2 => vec![text, &long, &long, text],
                        _ => vec![text; 1],
                    };
                    (near.as_raw_fd(), slices)
                })
                .collect();
            assert_eq!(send(sender, &batch), []);
            for ((_, far), (_, slices)) in pairs.iter_mut().zip(&batch) {
                let want = slices.concat();
                assert_eq!(received(far, want.len()), want);
                far.set_nonblocking(true).unwrap();
                assert!(far.read(&mut [0; 1]).is_err(), "nothing more");
            }
        });
    }

    #[test]
    fn a_message_of_very_many_slices_arrives_whole() {
        with_each(|sender| {
            let (near, mut far) = tcp_pair();
            let others: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
            let pieces: Vec<Vec<u8>> = (0..3000u32).map(|n| n.to_be_bytes().to_vec()).collect();
            let mut batch: Vec<(i32, Vec<&[u8]>)> =
                others.iter().map(|(near, _)| (near.as_raw_fd(), vec![&b"x"[..]])).collect();
            batch.push((near.as_raw_fd(), pieces.iter().map(Vec::as_slice).collect()));
            assert_eq!(send(sender, &batch), []);
            assert_eq!(received(&mut far, 12_000), pieces.concat());
        });
    }

    #[test]
    fn a_full_socket_says_how_much_it_took_and_the_others_are_served() {
        with_each(|sender| {
            let (near, mut far) = tcp_pair();
            let others: Vec<_> = (0..4).map(|_| UnixStream::pair().unwrap()).collect();
            let big: Vec<u8> = (0..16 * 1024 * 1024u32).map(|n| (n % 251) as u8).collect();
            let halves = [&big[..5_000_000], &big[5_000_000..]];
            let mut batch: Vec<(i32, Vec<&[u8]>)> = vec![(near.as_raw_fd(), halves.to_vec())];
            batch.extend(others.iter().map(|(near, _)| (near.as_raw_fd(), vec![&b"x"[..]])));
            let unsent = send(sender, &batch);
            let [Unsent { index: 0, result: SendResult::Short(took) }] = unsent[..] else { panic!("{unsent:?}") };
            assert!(took > 0 && took < big.len());
            assert_eq!(sender.take_full(), [connection(0)]);
            // Now it takes nothing at all.
            let again = send(sender, &batch);
            assert_eq!(again, [Unsent { index: 0, result: SendResult::Short(0) }]);
            near.shutdown(Shutdown::Write).unwrap();
            let mut got = Vec::new();
            far.read_to_end(&mut got).unwrap();
            assert!(got == big[..took], "what it says it took is what arrives");
            for (_, mut far) in others {
                assert_eq!(received(&mut far, 2), b"xx");
            }
        });
    }

    #[test]
    fn a_dead_socket_fails_alone() {
        with_each(|sender| {
            let pairs: Vec<_> = (0..5).map(|_| UnixStream::pair().unwrap()).collect();
            pairs[1].1.shutdown(Shutdown::Both).unwrap();
            let mut batch: Vec<(i32, Vec<&[u8]>)> =
                pairs.iter().map(|(near, _)| (near.as_raw_fd(), vec![&b"abc"[..]])).collect();
            batch.push((-1, vec![b"to nobody"]));
            let failed = |index| Unsent { index, result: SendResult::Failed };
            assert_eq!(send(sender, &batch), [failed(1), failed(5)]);
            assert_eq!(sender.take_full(), []);
        });
    }

    #[test]
    fn an_empty_batch_is_nothing() {
        with_each(|sender| assert_eq!(send(sender, &[]), []));
    }
}
