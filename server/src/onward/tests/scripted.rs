//! A server that does as it is told.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// How a scripted server treats one mail.
pub(super) struct Script {
    /// Whether it hangs up behind the final dot.
    cut: bool,
}

impl Script {
    pub(super) fn plain() -> Self {
        Self { cut: false }
    }
    pub(super) fn cut() -> Self {
        Self { cut: true }
    }
}

/// A server without any extension; tells each transaction as text.
pub(super) async fn scripted(scripts: Vec<Script>) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::channel(10);
    tokio::spawn(async move {
        let mut scripts = scripts.into_iter();
        while let Ok((stream, _)) = listener.accept().await {
            // One connection at a time is all that these tests make.
            let _ = converse(stream, &mut scripts, &sender).await;
        }
    });
    (address, receiver)
}

async fn converse(
    stream: TcpStream,
    scripts: &mut impl Iterator<Item = Script>,
    seen: &mpsc::Sender<String>,
) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    writer.write_all(b"220 old.example\r\n").await?;
    let (mut text, mut data) = (String::new(), false);
    while let Some(line) = lines.next_line().await? {
        if !line.starts_with("HELO") && !line.starts_with("EHLO") {
            text.push_str(&line);
            text.push('\n');
        }
        let reply = match line.as_str() {
            "." if data => {
                data = false;
                let script = scripts.next().unwrap_or(Script::plain());
                let _ = seen.send(std::mem::take(&mut text)).await;
                if script.cut {
                    return Ok(());
                }
                "250 taken"
            }
            _ if data => continue,
            "DATA" => {
                data = true;
                "354 go on"
            }
            line if line.starts_with("EHLO") => "502 what?",
            "QUIT" => return writer.write_all(b"221 bye\r\n").await,
            _ => "250 fine",
        };
        writer.write_all(format!("{reply}\r\n").as_bytes()).await?;
    }
    Ok(())
}
