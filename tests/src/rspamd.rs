//! Rspamd in a configuration folder of its own: no Redis, no DNS, and instead of its rules a few of the tests' own.

use std::net::SocketAddr;

use crate::{Process, Site, peer, wait};

/// What it does by the subject of a mail, besides finding GTUBE: "spam" is to be marked, "later" is deferred with what is known of the envelope,
/// "caution" is kept apart.
const RULES: &str = r#"
rspamd_config:register_symbol({
  name = 'OWN_RULES',
  type = 'prefilter',
  callback = function(task)
    local subject = task:get_subject() or ''
    local function address(kind)
      local found = {}
      for _, one in ipairs(kind or {}) do table.insert(found, one.addr) end
      return table.concat(found, ' ')
    end
    if subject == 'spam' then
      task:set_pre_result('add header', 'spam')
    elseif subject == 'caution' then
      task:set_pre_result('quarantine', 'look at it')
    elseif subject == 'later' then
      local ip = task:get_from_ip()
      task:set_pre_result('soft reject', string.format('ip=%s helo=%s from=%s to=%s id=%s size=%d',
        ip and ip:is_valid() and ip:to_string() or 'none', task:get_helo() or 'none',
        address(task:get_from('smtp')), address(task:get_recipients('smtp')), task:get_queue_id() or 'none', task:get_size()))
    end
  end,
})
"#;

/// A running Rspamd.
#[derive(Debug)]
pub struct Rspamd {
    /// Where its normal worker listens.
    pub address: SocketAddr,
    /// Its process.
    pub process: Process,
}

impl Rspamd {
    /// Starts one; its first start takes seconds.
    pub fn start(site: &Site) -> Self {
        // It changes to a user of its own, as root to root.
        peer::require_root("Rspamd");
        let rspamd = peer::program("/usr/bin/rspamd", "rspamd");
        let address = site.socket();
        let folder = site.make_folder("rspamd");
        let rules = site.write("rspamd/rules.lua", RULES);
        let (folder, rules) = (folder.display(), rules.display());
        let configuration = site.write(
            "rspamd/rspamd.conf",
            format!(
                r#"options {{
  pidfile = "{folder}/rspamd.pid";
  tempdir = "{folder}";
  filters = [];
  disable_hyperscan = true;
  max_message = 110M;
  dns {{ nameserver = ["127.0.0.1:1"]; timeout = 1s; retransmits = 1; }}
}}
logging {{ type = "console"; level = "info"; }}
lua = "{rules}";
actions {{ reject = 15; quarantine = 12; add_header = 6; }}
worker "normal" {{ bind_socket = "{address}"; count = 1; mime = true; task_timeout = 60s; }}
"#
            ),
        );
        let configuration = configuration.display().to_string();
        let data = format!("--var=DBDIR={folder}");
        let arguments = [
            "-f",
            "-i",
            "-u",
            "root",
            "-g",
            "root",
            &data,
            "-c",
            &configuration,
        ];
        let mut process = Process::start(site, "rspamd", &rspamd, arguments);
        process.wait_ready(|| wait::listens(address));
        Self { address, process }
    }
}
