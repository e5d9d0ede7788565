//! What sockets do that the shell relies on.

use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use skein::shell::listener;
use skein::shell::ready::{Breath, Ready};
use skein::shell::sys::{self, Half};

use crate::on_each_driver;

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

#[test]
fn accepted_sockets_inherit_that_small_writes_leave_at_once() {
    let listeners = listener::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap();
    let _client = TcpStream::connect(listeners[0].local_addr().unwrap()).unwrap();
    listeners[0].set_nonblocking(false).unwrap();
    let (accepted, _) = listeners[0].accept().unwrap();
    assert!(accepted.nodelay().unwrap());
}

#[test]
fn workers_share_one_port() {
    let listeners = listener::bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    assert_eq!(addresses, [addresses[0]; 3]);
}

#[test]
fn a_listener_that_is_shut_down_wakes_who_waits_for_it() {
    on_each_driver(|_| async {
        let listener = listener::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap().remove(0);
        let ready = Ready::new(listener.try_clone().unwrap().into()).unwrap();
        let descriptor = listener.as_raw_fd();
        let waiting = monoio::spawn(async move {
            ready.readable().await.unwrap();
            listener.accept().unwrap_err()
        });
        Breath::new().unwrap().take().await;
        sys::shutdown(descriptor, Half::Read).unwrap();
        assert_eq!(waiting.await.raw_os_error(), Some(libc::EINVAL));
    });
}

#[test]
fn a_socket_that_is_shut_down_wakes_its_reader_and_its_writer() {
    on_each_driver(|_| async {
        let (near, _far) = tcp_pair();
        let descriptor = near.as_raw_fd();
        // Full, so that there is something to wait for.
        while sys::send(descriptor, &[0; 65536]).is_ok() {}
        let ready = Rc::new(Ready::new(OwnedFd::from(near)).unwrap());
        let (reader, writer) = (ready.clone(), ready.clone());
        let reading = monoio::spawn(async move {
            reader.readable().await.unwrap();
            sys::recv(reader.descriptor(), &mut [0])
        });
        let writing = monoio::spawn(async move { writer.writable().await });
        Breath::new().unwrap().take().await;
        sys::reset_on_close(descriptor).unwrap();
        sys::shutdown(descriptor, Half::Both).unwrap();
        assert_eq!(reading.await.unwrap(), 0);
        writing.await.unwrap();
    });
}

#[test]
fn the_reading_half_shut_down_reads_the_end_and_still_writes() {
    on_each_driver(|_| async {
        let (near, far) = tcp_pair();
        let ready = Ready::new(OwnedFd::from(near)).unwrap();
        sys::shutdown(ready.descriptor(), Half::Read).unwrap();
        ready.readable().await.unwrap();
        assert_eq!(sys::recv(ready.descriptor(), &mut [0]).unwrap(), 0);
        assert_eq!(sys::send(ready.descriptor(), b"too late").unwrap(), 8);
        let far = Ready::new(OwnedFd::from(far)).unwrap();
        far.readable().await.unwrap();
        assert_eq!(sys::recv(far.descriptor(), &mut [0; 16]).unwrap(), 8);
    });
}

#[test]
fn a_wait_that_is_given_up_loses_nothing() {
    on_each_driver(|_| async {
        let breath = Breath::new().unwrap();
        let (near, far) = tcp_pair();
        let ready = Ready::new(OwnedFd::from(far)).unwrap();
        {
            let mut wait = std::pin::pin!(ready.readable());
            std::future::poll_fn(|cx| {
                assert!(wait.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            breath.take().await;
        }
        sys::send(near.as_raw_fd(), b"kept").unwrap();
        breath.take().await;
        ready.readable().await.unwrap();
        assert_eq!(sys::recv(ready.descriptor(), &mut [0; 16]).unwrap(), 4);
    });
}
