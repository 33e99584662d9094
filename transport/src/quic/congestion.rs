//! A congestion controller that does not mistake space for congestion.
//!
//! On a link in deep space a packet is lost to noise, and silence means that the link is closed; neither says
//! anything about queues. So nothing that the network does changes the rate. The rate itself is kept where datagrams leave
//! ([`super::datagram`]), and what is under way is bounded by the send window, as memory is.

use std::{any::Any, sync::Arc};

use quinn::congestion::{Controller, ControllerFactory};

/// Above `u32::MAX` quinn's pacer is off, which would send 1.25 windows in each smoothed round trip: too fast for the path at first, and
/// too slow for the rest of a connection that was once held up for hours.
const WINDOW: u64 = 1 << 40;

/// Makes [`FixedRate`] controllers.
#[derive(Clone, Copy, Debug)]
pub struct FixedRateConfig;

impl ControllerFactory for FixedRateConfig {
    fn build(self: Arc<Self>, _now: std::time::Instant, _current_mtu: u16) -> Box<dyn Controller> {
        Box::new(FixedRate)
    }
}

/// Lets everything leave; neither loss nor silence changes that.
#[derive(Clone, Copy, Debug)]
pub struct FixedRate;

impl Controller for FixedRate {
    fn on_congestion_event(
        &mut self,
        _now: std::time::Instant,
        _sent: std::time::Instant,
        _is_persistent_congestion: bool,
        _lost_bytes: u64,
    ) {
    }

    fn on_mtu_update(&mut self, _new_mtu: u16) {}

    fn window(&self) -> u64 {
        WINDOW
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
