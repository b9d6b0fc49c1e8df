//! Asks a broker which brokers are alive: the smallest request that proves that it serves clients.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

const TIMEOUT: Duration = Duration::from_secs(2);
/// Metadata v1 for no topics: api key 3, version 1, correlation 1, client id "xtask", 0 topics.
const REQUEST: &[u8] = b"\0\0\0\x13\0\x03\0\x01\0\0\0\x01\0\x05xtask\0\0\0\0";
const LARGEST_ANSWER: usize = 64 * 1024;

/// How many brokers the one on `port` sees alive.
pub(super) fn live_brokers(port: u16) -> Result<usize> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(REQUEST)?;
    let mut word = [0; 4];
    stream.read_exact(&mut word)?;
    let length = usize::try_from(u32::from_be_bytes(word))?;
    ensure!((8..=LARGEST_ANSWER).contains(&length), "an answer of {length} bytes is not Kafka's");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    broker_count(&answer)
}

/// The answer opens with the correlation id and the array of brokers.
fn broker_count(answer: &[u8]) -> Result<usize> {
    let word = |at: usize| -> Result<u32> {
        let bytes = answer.get(at..at + 4).context("the answer is too short")?;
        Ok(u32::from_be_bytes(bytes.try_into()?))
    };
    ensure!(word(0)? == 1, "the answer belongs to another request");
    Ok(usize::try_from(word(4)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_states_its_own_length() {
        assert_eq!(REQUEST.len(), 4 + usize::from(REQUEST[3]));
    }

    #[test]
    fn a_short_answer_is_an_error() {
        assert_eq!(broker_count(&[0, 0, 0, 1, 0, 0, 0, 3]).unwrap(), 3);
        assert!(broker_count(&[0, 0, 0, 1, 0]).is_err());
        assert!(broker_count(&[0, 0, 0, 2, 0, 0, 0, 3]).is_err());
    }
}
