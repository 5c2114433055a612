//! Questions to the DNS (RFC 1035) by hickory-resolver: NAPTR, SRV, A and AAAA. What is asked, in which order, and what
//! follows from it, is [`pbx::locate`](crate::pbx::locate)'s; this asks and keeps answers for their TTL, an hour at most.
//!
//! Every question has its answer, empty where there is nothing, none where nobody answers. The resolvers are those of this machine, or the one
//! that the configuration names. Bounded: questions under way, answers kept, and the time of each.

use crate::pbx::locate::{Question, Record, RecordKind};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;

/// Answers kept, of all kinds.
const CACHE: u64 = 512;
/// Longest time for which one is kept, whatever its TTL.
const KEPT: Duration = Duration::from_secs(3600);
/// For one server to answer once.
const TIMEOUT: Duration = Duration::from_secs(2);
/// For a question as a whole.
const PATIENCE: Duration = Duration::from_secs(6);
/// Questions under way at once.
const UNDER_WAY: usize = 64;
/// Records taken of one answer.
const RECORDS: usize = 32;

/// None where nobody answered.
type Answer = (u64, Option<Vec<Record>>);

/// The resolver of this program.
#[derive(Debug)]
pub struct Dns {
    server: Option<SocketAddr>,
    resolver: Option<TokioResolver>,
    answers: mpsc::Sender<Answer>,
    answered: mpsc::Receiver<Answer>,
    under_way: std::sync::Arc<tokio::sync::Semaphore>,
    /// Those that found no room, to be answered at once.
    refused: Vec<u64>,
}

impl Dns {
    /// Asks `server`, or where there is none those that this machine is set up with. Nothing is sent yet.
    pub fn new(server: Option<SocketAddr>) -> Dns {
        let (answers, answered) = mpsc::channel(UNDER_WAY);
        let under_way = std::sync::Arc::new(tokio::sync::Semaphore::new(UNDER_WAY));
        Dns { server, resolver: None, answers, answered, under_way, refused: Vec::new() }
    }

    /// Asks; [`Dns::answered`] brings the answer. Call it within a tokio runtime.
    pub fn ask(&mut self, query: u64, question: Question) {
        if self.resolver.is_none() {
            self.resolver = resolver(self.server).inspect_err(|e| tracing::warn!(%e, "no DNS")).ok();
        }
        let permit = std::sync::Arc::clone(&self.under_way).try_acquire_owned();
        let (Some(resolver), Ok(permit)) = (self.resolver.clone(), permit) else { return self.refused.push(query) };
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let records = match tokio::time::timeout(PATIENCE, look_up(&resolver, &question)).await {
                Ok(Ok(records)) => Some(records),
                // A server's word that there is nothing, or a name that cannot be one.
                Ok(Err(NetError::Dns(_) | NetError::Proto(_))) => Some(Vec::new()),
                Ok(Err(fault)) => {
                    tracing::warn!(name = %question.name, %fault, "the DNS does not answer");
                    None
                }
                Err(_) => None,
            };
            let _ = answers.send((query, records)).await;
            drop(permit);
        });
    }

    /// The next answer.
    pub async fn answered(&mut self) -> Option<Answer> {
        match self.refused.pop() {
            Some(query) => Some((query, None)),
            None => self.answered.recv().await,
        }
    }
}

fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let mut builder = match server {
        None => TokioResolver::builder_tokio()?,
        Some(server) => {
            let mut config = NameServerConfig::udp_and_tcp(server.ip());
            config.connections.iter_mut().for_each(|c| c.port = server.port());
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![config]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let options = builder.options_mut();
    (options.cache_size, options.timeout, options.attempts) = (CACHE, TIMEOUT, 2);
    (options.positive_max_ttl, options.negative_max_ttl) = (Some(KEPT), Some(KEPT));
    builder.build()
}

async fn look_up(resolver: &TokioResolver, question: &Question) -> Result<Vec<Record>, NetError> {
    let mut name = Name::from_utf8(&question.name)?;
    // A domain is meant as it is written; the machine's own search list is none of its business.
    name.set_fqdn(true);
    if question.kind == RecordKind::Address {
        let found = resolver.lookup_ip(name).await?;
        return Ok(found.iter().take(RECORDS).map(Record::Address).collect());
    }
    let kind = if question.kind == RecordKind::Srv { RecordType::SRV } else { RecordType::NAPTR };
    let found = resolver.lookup(name, kind).await?;
    Ok(found.answers().iter().filter_map(|r| record(&r.data)).take(RECORDS).collect())
}

fn record(data: &RData) -> Option<Record> {
    match data {
        RData::SRV(srv) => Some(Record::Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_ascii(),
        }),
        RData::NAPTR(naptr) => Some(Record::Naptr {
            order: naptr.order,
            preference: naptr.preference,
            service: String::from_utf8_lossy(&naptr.services).into_owned(),
            replacement: naptr.replacement.to_ascii(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
