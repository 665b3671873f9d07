//! What other members ask of this one.

use castd_proto::castdpb::{Answer, Question, answer, question};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::door::Company;
use crate::peer_transport::Questions;
use crate::shared::Error;

impl Questions for Company {
    fn answer(&self, _from: u64, question: Question) -> BoxFuture<'_, Result<Answer, Error>> {
        async move {
            let answer = match question.question {
                Some(question::Question::KeepAlive(asked)) => {
                    let ttl_s = self.keep_alive_as_leader(&asked.ids).await?;
                    answer::Answer::KeepAlive(answer::KeepAlive { ttl_s })
                }
                Some(question::Question::TimeToLive(asked)) => {
                    answer::Answer::TimeToLive(self.answer_time_to_live(&asked).await?)
                }
                Some(question::Question::Promote(asked)) => {
                    self.promote_as_leader(asked.member_id).await?;
                    answer::Answer::Promote(answer::Promote {})
                }
                // Who this member is, says PeerService; a question that is none
                // of these comes from a newer member.
                Some(question::Question::Info(_)) | None => return Err(Error::NotCapable),
            };
            Ok(Answer { answer: Some(answer) })
        }
        .boxed()
    }
}

impl Company {
    async fn answer_time_to_live(
        &self,
        asked: &question::TimeToLive,
    ) -> Result<answer::TimeToLive, Error> {
        let Some(lease) = self.time_to_live_as_leader(asked.id, asked.keys).await? else {
            return Ok(answer::TimeToLive::default());
        };
        Ok(answer::TimeToLive {
            found: true,
            granted_ttl_s: lease.granted_ttl_s,
            ttl_s: lease.ttl_s,
            keys: lease.keys,
        })
    }
}
