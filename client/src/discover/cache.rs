//! What the resolver said last: served while it holds, and beyond when the resolver is silent.
//!
//! Only positive answers are kept on disk: they are what a silent resolver leaves us with after a restart.

use std::{
    collections::HashMap,
    io::Write,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use lightpost_clock::add;
use serde::{Deserialize, Serialize};

use super::lookup::{Answer, Nothing};

/// While the resolver is silent, it is asked again only so often (RFC 8767 section 5).
const RECHECK: Duration = Duration::from_secs(30);
/// Answers that are remembered; beyond, those that ended are dropped, negative ones first.
const MOST: usize = 10_000;

/// What is known of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known<T> {
    /// The answer holds.
    Fresh(T),
    /// The answer no longer holds, but there is no newer one.
    Stale(T),
    /// There is nothing, and that holds.
    Nothing(Nothing),
    /// The resolver was silent a moment ago and nothing is known from before.
    Silent(String),
}

#[derive(Clone, Debug)]
struct Entry<T> {
    records: Option<T>,
    /// Until when `records` or `nothing` hold.
    until: Timestamp,
    nothing: Option<Nothing>,
    /// Until when the resolver is not asked again after a silence.
    silent: Option<(Timestamp, String)>,
}

/// A record on disk.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kept<T> {
    name: String,
    until: Timestamp,
    records: T,
}

/// Answers by name.
#[derive(Debug)]
pub(crate) struct Cache<T>(Mutex<HashMap<String, Entry<T>>>);

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Cache<T> {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry<T>>> {
        // A poisoned map is still a map of whole entries.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may be used without asking; `None` when the resolver should be asked.
    pub(crate) fn get(&self, name: &str, now: Timestamp) -> Option<Known<T>> {
        let map = self.lock();
        let entry = map.get(name)?;
        if now < entry.until {
            if let Some(nothing) = entry.nothing {
                return Some(Known::Nothing(nothing));
            }
            if let Some(records) = &entry.records {
                return Some(Known::Fresh(records.clone()));
            }
        }
        let (_, why) = entry.silent.as_ref().filter(|(until, _)| now < *until)?;
        Some(match &entry.records {
            Some(records) => Known::Stale(records.clone()),
            None => Known::Silent(why.clone()),
        })
    }

    /// The last records, whether they hold or not.
    pub(crate) fn last(&self, name: &str) -> Option<T> {
        self.lock().get(name)?.records.clone()
    }

    /// Takes a new answer and says what is known now, and whether what belongs on disk has changed.
    pub(crate) fn put(&self, name: &str, answer: Answer<T>, now: Timestamp) -> (Known<T>, bool) {
        let mut map = self.lock();
        if map.len() >= MOST {
            map.retain(|_, entry| entry.records.is_some() || now < entry.until);
            make_room(&mut map);
        }
        let old = map.remove(name);
        let had = old.as_ref().is_some_and(|entry| entry.records.is_some());
        let (entry, known, changed) = match answer {
            Answer::Records(records, ttl) => (
                Entry {
                    records: Some(records.clone()),
                    until: add(now, ttl.max(Duration::from_secs(1))),
                    nothing: None,
                    silent: None,
                },
                Known::Fresh(records),
                true,
            ),
            // A fresh "nothing" beats what was known before.
            Answer::Nothing(nothing, ttl) => (
                Entry {
                    records: None,
                    until: add(now, ttl.max(Duration::from_secs(1))),
                    nothing: Some(nothing),
                    silent: None,
                },
                Known::Nothing(nothing),
                had,
            ),
            Answer::Silent(why) => {
                let records = old.as_ref().and_then(|entry| entry.records.clone());
                let known = match &records {
                    Some(records) => Known::Stale(records.clone()),
                    None => Known::Silent(why.clone()),
                };
                let until = old.map_or(now, |entry| entry.until);
                let entry = Entry {
                    records,
                    until,
                    nothing: None,
                    silent: Some((add(now, RECHECK), why)),
                };
                (entry, known, false)
            }
        };
        map.insert(name.to_owned(), entry);
        (known, changed)
    }

    /// What belongs on disk.
    pub(crate) fn kept(&self) -> Vec<Kept<T>> {
        let map = self.lock();
        let mut kept: Vec<Kept<T>> = map
            .iter()
            .filter_map(|(name, entry)| {
                Some(Kept {
                    name: name.clone(),
                    until: entry.until,
                    records: entry.records.clone()?,
                })
            })
            .collect();
        kept.sort_by(|a, b| a.name.cmp(&b.name));
        kept
    }

    /// Takes over what was on disk.
    pub(crate) fn restore(&self, kept: Vec<Kept<T>>) {
        let mut map = self.lock();
        for Kept { name, until, records } in kept {
            let entry = Entry {
                records: Some(records),
                until,
                nothing: None,
                silent: None,
            };
            map.insert(name, entry);
        }
    }
}

/// Replaces `path` by `content` as a whole, so that a crash leaves the old or the new file.
pub(crate) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

/// Drops those that end or ended first, many at once, so that this is rare. Names come from whoever sends mail: without a bound they
/// could be made up until the memory is full.
fn make_room<T>(map: &mut HashMap<String, Entry<T>>) {
    let Some(surplus) = map
        .len()
        .checked_sub(MOST - MOST / 10)
        .filter(|_| map.len() >= MOST)
    else {
        return;
    };
    let mut ends: Vec<Timestamp> = map.values().map(|entry| entry.until).collect();
    let (_, last, _) = ends.select_nth_unstable(surplus);
    let (last, mut left) = (*last, surplus);
    map.retain(|_, entry| {
        let goes = left > 0 && entry.until <= last;
        left -= usize::from(goes);
        !goes
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn made_up_names_do_not_fill_the_memory() {
        let cache = Cache::default();
        let now = Timestamp::from_second(1_900_000_000).unwrap();
        for number in 0..3 * MOST as u64 {
            let answer = Answer::Records(vec![number], Duration::from_secs(60));
            cache.put(
                &format!("{number}.example"),
                answer,
                add(now, Duration::from_millis(number)),
            );
        }
        let kept = cache.kept();
        assert!(kept.len() <= MOST, "{}", kept.len());
        let newest = format!("{}.example", 3 * MOST - 1);
        assert!(kept.iter().any(|one| one.name == newest));
    }

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_900_000_000 + seconds).unwrap()
    }

    fn records(value: u8, ttl: u64) -> Answer<u8> {
        Answer::Records(value, Duration::from_secs(ttl))
    }

    #[test]
    fn silence_leaves_the_old_answer_and_nothing_removes_it() {
        let cache = Cache::default();
        assert_eq!(cache.get("a", at(0)), None);
        assert_eq!(cache.put("a", records(1, 60), at(0)), (Known::Fresh(1), true));
        assert_eq!(cache.get("a", at(59)), Some(Known::Fresh(1)));
        assert_eq!(cache.get("a", at(60)), None);
        let silence = || Answer::Silent("timeout".into());
        assert_eq!(cache.put("a", silence(), at(60)), (Known::Stale(1), false));
        assert_eq!(cache.get("a", at(89)), Some(Known::Stale(1)));
        assert_eq!(cache.get("a", at(90)), None, "asked again after a while");
        let nothing = Answer::Nothing(Nothing::Name, Duration::from_secs(10));
        assert_eq!(
            cache.put("a", nothing, at(90)),
            (Known::Nothing(Nothing::Name), true)
        );
        assert_eq!(cache.get("a", at(99)), Some(Known::Nothing(Nothing::Name)));
        assert_eq!(
            cache.put("a", silence(), at(100)),
            (Known::Silent("timeout".into()), false)
        );
        assert_eq!(cache.get("a", at(101)), Some(Known::Silent("timeout".into())));
    }

    #[test]
    fn what_was_on_disk_is_stale_after_its_time() {
        let cache = Cache::default();
        cache.put("a", records(1, 60), at(0));
        let text = serde_json::to_string(&cache.kept()).unwrap();
        let later = Cache::default();
        later.restore(serde_json::from_str(&text).unwrap());
        assert_eq!(later.get("a", at(30)), Some(Known::Fresh(1)));
        assert_eq!(later.get("a", at(61)), None);
        let silence = Answer::Silent("timeout".into());
        assert_eq!(later.put("a", silence, at(61)).0, Known::Stale(1));
    }
}
