//! The load on the two replicas: clients that order, read their orders and ask for something slow.

use std::fmt;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::time::Duration;

use axum::Json;
use serde::Deserialize;
use taskgroup::{BoxError, CancellationToken};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{Answer, Client, Connections, Failure};
use crate::dice::Dice;

pub(crate) const CLIENTS: u32 = 24;
/// Those of them that open a connection for each request: 30 %.
pub(crate) const WITHOUT_KEEP_ALIVE: u32 = 7;
/// One request in so many is slow: 5 %.
const SLOW: u32 = 20;
/// The longest pause between two requests.
const THINK: Duration = Duration::from_millis(20);

/// Clients at work. Dropping it ends them in the middle of their requests.
#[derive(Debug)]
pub(crate) struct Load {
    enough: CancellationToken,
    clients: JoinSet<Tally>,
}

/// What became of the requests. Lost is what did not get a 2xx.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    /// Nobody took the connection.
    pub(crate) refused: u64,
    /// The connection ended before the answer did.
    pub(crate) broken: u64,
    /// Answered with another status.
    pub(crate) status: u64,
}

#[derive(Deserialize)]
struct Created {
    id: i64,
}

impl Load {
    pub(crate) fn start(service: SocketAddr) -> Self {
        let enough = CancellationToken::new();
        let clients = (0..CLIENTS)
            .map(|number| shop(number, service, enough.clone()))
            .collect();
        Self { enough, clients }
    }

    /// Waits for the answers to the last requests.
    pub(crate) async fn finish(mut self) -> Result<Tally, BoxError> {
        self.enough.cancel();
        let mut sum = Tally::default();
        while let Some(tally) = self.clients.join_next().await {
            sum += tally?;
        }
        Ok(sum)
    }
}

async fn shop(number: u32, service: SocketAddr, enough: CancellationToken) -> Tally {
    let connections = if number < WITHOUT_KEEP_ALIVE {
        Connections::OnePerRequest
    } else {
        Connections::Kept
    };
    let mut client = Client::new(service, connections);
    let mut dice = Dice::new(number);
    let mut tally = Tally::default();
    let mut order = None;
    while !enough.is_cancelled() {
        let slow = dice.below(SLOW) == 0;
        let again = dice.below(2) == 0;
        let answer = match order {
            _ if slow => client.get("/slow?ms=700").await,
            Some(id) if again => client.get(&format!("/orders/{id}")).await,
            _ => create(&mut client, &mut order).await,
        };
        tally.count(&answer);
        sleep(THINK * dice.below(101) / 100).await;
    }
    tally
}

/// Remembers the order, to read it later from whichever replica.
async fn create(client: &mut Client, order: &mut Option<i64>) -> Result<Answer, Failure> {
    let answer = client.post("/orders", r#"{"item":"tea","quantity":2}"#);
    let answer = answer.await?;
    if let Ok(Json(Created { id })) = Json::from_bytes(&answer.body) {
        *order = Some(id);
    }
    Ok(answer)
}

impl Tally {
    pub(crate) fn lost(&self) -> u64 {
        self.refused + self.broken + self.status
    }

    fn count(&mut self, answer: &Result<Answer, Failure>) {
        self.requests += 1;
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => {}
            Ok(_) => self.status += 1,
            Err(Failure::Refused) => self.refused += 1,
            Err(Failure::NotSent | Failure::Unanswered) => self.broken += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            requests,
            refused,
            broken,
            status,
        } = self;
        write!(
            f,
            "{requests} requests, {} lost: {refused} refused, {broken} broken, {status} not 2xx",
            self.lost()
        )
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.refused += other.refused;
        self.broken += other.broken;
        self.status += other.status;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> Result<Answer, Failure> {
        Ok(Answer {
            status,
            body: Vec::new(),
            goodbye: false,
        })
    }

    #[test]
    fn lost_is_what_did_not_get_a_2xx() {
        let mut tally = Tally::default();
        tally.count(&answered(200));
        tally.count(&answered(201));
        assert_eq!((tally.requests, tally.lost()), (2, 0));

        tally.count(&answered(503));
        tally.count(&Err(Failure::Refused));
        tally.count(&Err(Failure::NotSent));
        tally.count(&Err(Failure::Unanswered));
        let expected = Tally {
            requests: 6,
            refused: 1,
            broken: 2,
            status: 1,
        };
        assert_eq!(tally, expected);
        assert_eq!(tally.lost(), 4);
    }

    #[test]
    fn tallies_add_up() {
        let one = Tally {
            requests: 10,
            refused: 1,
            broken: 2,
            status: 3,
        };
        let mut sum = one;
        sum += one;
        assert_eq!((sum.requests, sum.lost()), (20, 12));
    }
}
