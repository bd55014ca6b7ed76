//! The daemon's end of the line to process 1: its standard input.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::unix::AsyncFd;

use crate::console::say;
use crate::init::message::{self, FromInit, SlotName, ToInit};

#[derive(Clone)]
pub struct Link(Rc<AsyncFd<OwnedFd>>);

impl Link {
    /// Takes the line.
    pub fn open() -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self(Rc::new(crate::sys::watch(socket)?)))
    }

    /// Says something. Process 1 reads at once; when it cannot, it is gone, and so is the machine.
    pub fn send(&self, message: ToInit) {
        if let Err(error) = send(self.0.get_ref(), &message.encode(), SendFlags::NOSIGNAL) {
            say!("kiln: process 1 does not listen to {message:?}: {error}");
        }
    }

    /// The next message.
    pub async fn receive(&self) -> io::Result<FromInit> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut bytes = [0; message::BYTES];
            match recv(self.0.get_ref(), &mut bytes, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((length, _)) => match FromInit::decode(&bytes[..length.min(message::BYTES)]) {
                    Some(message) => return Ok(message),
                    None => say!("kiln: process 1 sent something that is no message"),
                },
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What process 1 has running already. An end that comes in between is that of a slot that is not
    /// listed: nobody waits for it.
    pub async fn running(&self) -> io::Result<Vec<SlotName>> {
        self.send(ToInit::List);
        let mut running = Vec::new();
        loop {
            match self.receive().await? {
                FromInit::Running(slot, _) => running.push(slot),
                FromInit::ListEnd => return Ok(running),
                _ => {}
            }
        }
    }
}
