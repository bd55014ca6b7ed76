//! A disk that does not answer keeps back whoever must wait for it, and nobody else.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::datagrams::{lease, option, packet, tell};
use super::fleet::Fleet;
use crate::dhcp::Driver;
use crate::run::prepare;

const OFFER: Option<&[u8]> = Some(&[2]);
const ACK: Option<&[u8]> = Some(&[5]);

#[tokio::test]
async fn while_the_disk_hangs_offers_go_out_and_acks_wait_for_it() {
    let fleet = Fleet::new();
    fleet.publish("1");
    let config = fleet.config();
    let socket = config.socket();
    let (server, _writer) = prepare(config, &socket).await.expect("prepared");
    server.leases.load(&server.db).await.expect("loaded");
    let driver = Driver::bind(Arc::clone(&server)).expect("bound");
    let running = tokio::spawn(driver.run());
    // The disk is quick as long as it answers, so who receives writes.
    for last in 1..=20 {
        lease(&fleet, [2, 0, 0, 0, 0, last % 2 + 1]).await;
    }

    for round in 0..3 {
        let (first, second) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let wants = [UdpSocket::bind("127.0.0.1:0").await, UdpSocket::bind("127.0.0.1:0").await];
        let [one, two] = wants.map(|socket| socket.expect("bound"));
        let mut requests = Vec::new();
        for (client, socket) in [(first, &one), (second, &two)] {
            let offer = tell(socket, fleet.dhcp, &packet(1, client, &[])).await;
            let server = option(&offer, 54).expect("a server id");
            requests.push(packet(3, client, &[(50, &offer[16..20]), (54, &server)]));
        }
        let disk = server.leases.hang().await;
        let mut answer = [0; 2000];
        let mut waits = async |socket: &UdpSocket| {
            tokio::time::timeout(Duration::from_millis(100), socket.recv(&mut answer)).await.is_err()
        };
        for (request, socket) in requests.iter().zip([&one, &two]) {
            socket.send_to(request, ("127.0.0.1", fleet.dhcp)).await.expect("sent");
            assert!(waits(socket).await, "round {round}: an ACK that is not durable");
            // Both a client's whose REQUEST waits, and another's.
            for client in [first, second] {
                let other = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
                let offer = tell(&other, fleet.dhcp, &packet(1, client, &[])).await;
                assert_eq!(option(&offer, 53).as_deref(), OFFER, "round {round}");
            }
        }
        drop(disk);
        for socket in [&one, &two] {
            let mut ack = [0; 2000];
            let received = tokio::time::timeout(Duration::from_secs(3), socket.recv(&mut ack)).await;
            let length = received.expect("an answer").expect("received");
            assert_eq!(option(&ack[..length], 53).as_deref(), ACK, "round {round}");
        }
    }
    running.abort();
    assert!(running.await.expect_err("it was stopped").is_cancelled());
}
