//! Loss costs no light time for a small mail.

use super::world::*;
use lightpost_transport::Path;

/// Cold, warm and resumed arrivals over many seeds, sorted.
fn arrivals(path: &Path, seeds: u64) -> [Vec<f64>; 3] {
    let papers = Papers::new();
    let mut arrivals = [Vec::new(), Vec::new(), Vec::new()];
    for seed in 0..seeds {
        let times = virtually(async || {
            let mut world = World::new(&papers, path.clone(), link(path), seed);
            let (cold, _) = world.mail(4096).await;
            world.wait(MARS * 9).await;
            let (warm, _) = world.mail(4096).await;
            world.wait(MARS * 9).await;
            world.restart().await;
            let (resumed, _) = world.mail(4096).await;
            [cold, warm, resumed]
        });
        for (all, time) in arrivals.iter_mut().zip(times) {
            all.push(time);
        }
    }
    for all in &mut arrivals {
        all.sort_by(f64::total_cmp);
    }
    arrivals
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() as f64 * part) as usize).min(sorted.len() - 1)]
}

#[test]
fn at_one_percent_of_loss_a_small_mail_takes_the_light_time() {
    let path = Path { loss: 0.01, ..mars() };
    let seeds = std::env::var("SEEDS").map_or(40, |seeds| seeds.parse().unwrap());
    let [cold, warm, resumed] = arrivals(&path, seeds);
    for (name, sorted) in [("cold", &cold), ("warm", &warm), ("resumed", &resumed)] {
        let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
        let [p95, p99, max] = [0.95, 0.99, 1.0].map(|part| percentile(sorted, part));
        eprintln!("{name}: mean {mean:.4} p95 {p95:.4} p99 {p99:.4} max {max:.4}");
    }
    assert!(percentile(&warm, 0.99) < 1.002, "{warm:?}");
    assert!(percentile(&resumed, 0.99) < 1.002, "{resumed:?}");
    assert!(percentile(&cold, 0.99) < 3.003, "{cold:?}");
}
