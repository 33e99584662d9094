//! From query to answer.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, NULL, SOA},
    },
};

use super::{Data, Zone, ZoneError};

const URI: u16 = 256;
/// Longest target: record, name and the rest of the message have to fit into 64 KiB.
const TARGET_MAX: usize = 60_000;
/// Largest answer by UDP, whatever the client offers: what passes everywhere without fragments.
const UDP_MAX: u16 = 1232;

/// A zone, read.
#[derive(Debug)]
pub(super) struct Names {
    origin: Name,
    soa: Record,
    records: Vec<Record>,
}

impl Names {
    pub(super) fn new(zone: &Zone) -> Result<Self, ZoneError> {
        let origin = name(&zone.origin)?;
        let records = zone
            .records
            .iter()
            .map(|(owner, data)| {
                let owner_name = name(owner)?;
                if !origin.zone_of(&owner_name) {
                    return Err(ZoneError::Outside(owner.clone()));
                }
                Ok(Record::from_rdata(owner_name, zone.ttl, rdata(owner, data)?))
            })
            .collect::<Result<_, _>>()?;
        let soa = SOA::new(origin.clone(), origin.clone(), 1, 3600, 600, 86_400, zone.ttl);
        Ok(Self {
            soa: Record::from_rdata(origin.clone(), zone.ttl, RData::SOA(soa)),
            origin,
            records,
        })
    }

    /// The answer to a query in wire form; none to what is no query.
    pub(super) fn answer(&self, query: &[u8], udp: bool) -> Option<Vec<u8>> {
        let Ok(query) = Message::from_vec(query) else {
            let id = u16::from_be_bytes(*query.first_chunk()?);
            return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr)
                .to_vec()
                .ok();
        };
        // Answers to answers would go round for ever.
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut answer = self.respond(&query);
        if query.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_MAX);
            answer.set_edns(edns);
        }
        let octets = answer.to_vec().ok()?;
        if udp && octets.len() > usize::from(query.max_payload().min(UDP_MAX)) {
            return answer.truncate().to_vec().ok();
        }
        Some(octets)
    }

    fn respond(&self, query: &Message) -> Message {
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        answer.add_queries(query.queries.iter().cloned());
        let [question] = query.queries.as_slice() else {
            answer.metadata.response_code = ResponseCode::FormErr;
            return answer;
        };
        if query.metadata.op_code != OpCode::Query {
            answer.metadata.response_code = ResponseCode::NotImp;
            return answer;
        }
        if question.query_class() != DNSClass::IN || !self.origin.zone_of(question.name()) {
            answer.metadata.response_code = ResponseCode::Refused;
            return answer;
        }
        answer.metadata.authoritative = true;
        // Stub resolvers ask this server directly and some insist that it resolves.
        answer.metadata.recursion_available = true;
        self.fill(question, &mut answer);
        answer
    }

    fn fill(&self, question: &Query, answer: &mut Message) {
        let (name, wanted) = (question.name(), question.query_type());
        let all = std::iter::once(&self.soa).chain(&self.records);
        let found = all.filter(|record| {
            record.name == *name && (record.record_type() == wanted || wanted == RecordType::ANY)
        });
        answer.add_answers(found.cloned());
        if !answer.answers.is_empty() {
            return;
        }
        // Without the SOA nobody may remember a negative answer (RFC 2308 section 5).
        answer.add_authority(self.soa.clone());
        // A name exists when it has records or when one below it has.
        let exists = *name == self.origin || self.records.iter().any(|record| name.zone_of(&record.name));
        if !exists {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
    }
}

fn name(text: &str) -> Result<Name, ZoneError> {
    let mut name = Name::from_ascii(text).map_err(|_| ZoneError::Name(text.to_owned()))?;
    name.set_fqdn(true);
    Ok(name)
}

fn rdata(owner: &str, data: &Data) -> Result<RData, ZoneError> {
    Ok(match data {
        Data::A(address) => RData::A(A(*address)),
        Data::Aaaa(address) => RData::AAAA(AAAA(*address)),
        Data::Uri {
            priority,
            weight,
            target,
        } => {
            if target.is_empty() || target.len() > TARGET_MAX {
                return Err(ZoneError::Target(owner.to_owned()));
            }
            let octets = [&priority.to_be_bytes(), &weight.to_be_bytes(), target.as_bytes()].concat();
            RData::Unknown {
                code: RecordType::from(URI),
                rdata: NULL::with(octets),
            }
        }
    })
}
