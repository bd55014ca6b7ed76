//! Binding to an address that the host may only just have been given.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// How often, and how long apart: duplicate address detection takes a second, and a busy host longer.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(100);

/// Does `bind`. A host looks whether anybody else has an IPv6 address before it lets programs use it (RFC 4862,
/// section 5.4), so that a server that starts with its host would otherwise find its own address missing.
pub async fn when_settled<T>(address: SocketAddr, mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..TRIES {
        match bind() {
            Err(error) if address.is_ipv6() && error.kind() == io::ErrorKind::AddrNotAvailable => {
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
    bind()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_ipv6_address_is_waited_for_and_one_of_ipv4_is_there_or_not() {
        let tried = async |address: &str| {
            let (address, mut tries) = (address.parse().expect("an address"), 0);
            let bound = when_settled(address, || {
                tries += 1;
                if tries == 4 { Ok(()) } else { Err(io::ErrorKind::AddrNotAvailable.into()) }
            });
            let bound = bound.await.is_ok();
            (bound, tries)
        };
        assert_eq!(tried("[fd77::1]:80").await, (true, 4));
        assert_eq!(tried("192.0.2.1:80").await, (false, 1));
        let taken = when_settled("[fd77::1]:80".parse().expect("an address"), || {
            Err::<(), _>(io::Error::from(io::ErrorKind::AddrInUse))
        });
        assert_eq!(taken.await.expect_err("taken").kind(), io::ErrorKind::AddrInUse);
    }
}
