//! Two rows again in real time, to show that virtual time tells the truth.

use lightpost_clock::Clock;

use crate::{
    Result,
    distance::{REAL, Row, SIZE},
    pair::{Distance, Pair, mail},
};

/// A cold and a warm mail at two light seconds, through a forwarder between two sockets of the kernel.
///
/// # Errors
/// When a program does not start or a mail is not answered.
pub async fn rows() -> Result<Vec<Row>> {
    let mut pair = Pair::start_in_real_time(Distance::new(REAL)).await?;
    let mut rows = Vec::new();
    for name in ["cold", "warm"] {
        let journey = pair.send(&mail(SIZE, 1)).await?;
        rows.push(Row {
            real_time: true,
            ..Row::new(name, &pair.distance, &journey)
        });
        Clock::system().sleep(REAL * 4).await;
    }
    Ok(rows)
}
