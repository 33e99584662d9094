//! A congestion controller that does not mistake space for congestion.
//!
//! On a link in deep space a packet is lost to noise, and silence means that the link is closed; neither says
//! anything about queues. So the window is what the path's figures say, and stays.

use std::{any::Any, sync::Arc};

use quinn::congestion::{Controller, ControllerFactory};

/// Makes [`FixedWindow`] controllers.
#[derive(Clone, Copy, Debug)]
pub struct FixedWindowConfig {
    /// Octets in flight.
    pub window: u64,
}

impl ControllerFactory for FixedWindowConfig {
    fn build(self: Arc<Self>, _now: std::time::Instant, _current_mtu: u16) -> Box<dyn Controller> {
        Box::new(FixedWindow { window: self.window })
    }
}

/// A window that neither loss nor silence changes.
#[derive(Clone, Copy, Debug)]
pub struct FixedWindow {
    window: u64,
}

impl Controller for FixedWindow {
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
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(*self)
    }

    fn initial_window(&self) -> u64 {
        self.window
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
