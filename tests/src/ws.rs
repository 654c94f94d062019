//! Either end of a runner's WebSocket, by hand.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::DEADLINE;

pub struct Ws {
    pub socket: WebSocketStream<TcpStream>,
    /// The upgrade request's target and headers, where we are the server.
    pub target: String,
    pub headers: Vec<(String, String)>,
}

impl Ws {
    /// Takes one connection as a hub would, answering with the given header.
    #[allow(clippy::result_large_err, reason = "the library's callback has this type")]
    pub async fn accept(listener: &TcpListener, id_header: Option<&str>) -> Self {
        let (tcp, _) = tokio::time::timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
        tcp.set_nodelay(true).unwrap();
        let (mut target, mut headers) = (String::new(), Vec::new());
        let callback = |request: &Request, mut response: Response| {
            target = request.uri().to_string();
            for (name, value) in request.headers() {
                headers.push((name.to_string(), value.to_str().unwrap_or_default().to_owned()));
            }
            if let Some(id) = id_header {
                response.headers_mut().insert("X-Worknode-ID", HeaderValue::from_str(id).unwrap());
            }
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(tcp, callback).await.unwrap();
        Self { socket, target, headers }
    }

    /// Connects as a runner would; the error is the status of a refusal.
    pub async fn connect(address: &str, target: &str, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let mut request = format!("ws://{address}{target}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        match tokio_tungstenite::client_async(request, tcp).await {
            Ok((socket, response)) => {
                let headers = response
                    .headers()
                    .iter()
                    .map(|(n, v)| (n.to_string(), v.to_str().unwrap_or_default().to_owned()))
                    .collect();
                Ok(Self { socket, target: target.into(), headers })
            }
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub async fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Sends a message of a type.
    pub async fn say(&mut self, kind: &str, payload: Value) {
        self.send(&json!({ "id": "msg_test", "type": kind, "payload": payload, "timestamp": 1 })).await;
    }

    /// The next message; `None` when the other end is gone.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            match tokio::time::timeout(DEADLINE, self.socket.next()).await.expect("a message comes") {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(text.as_str()).unwrap()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next message of a type; others are passed over.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await.expect("the connection lasts");
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// The result of a task; other messages are passed over.
    pub async fn result_of(&mut self, task: &str) -> Value {
        loop {
            let message = self.next_of("task.result").await;
            if message["payload"]["task_id"] == task {
                return message;
            }
        }
    }
}
