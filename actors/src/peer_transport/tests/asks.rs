//! Questions and their answers.

use castd_proto::castdpb::{answer, question};

use super::relay::Mode;
use super::*;

fn keep_alive() -> Question {
    let keep_alive = question::KeepAlive { ids: vec![5, 6] };
    Question { question: Some(question::Question::KeepAlive(keep_alive)) }
}

fn kept() -> Answer {
    let kept = answer::KeepAlive { ttl_s: vec![30, 0] };
    Answer { answer: Some(answer::Answer::KeepAlive(kept)) }
}

#[actix::test]
async fn a_question_is_answered_by_the_member_asked() {
    let (mut a, b, _relay) = pair().await;
    a.up().await;
    b.oracle.set(Arc::new(Ok(kept())));
    assert_eq!(a.ask(B, keep_alive()).await, Ok(kept()));
}

#[actix::test]
async fn every_error_arrives_as_what_it_is() {
    let (mut a, b, _relay) = pair().await;
    a.up().await;
    for error in Error::ALL {
        b.oracle.set(Arc::new(Err(*error)));
        assert_eq!(a.ask(B, keep_alive()).await, Err(*error));
    }
    // An answer to something else is none.
    let text = answer::Answer::Error("an error of a later version".to_owned());
    for odd in [Answer { answer: Some(text) }, Answer::default()] {
        b.oracle.set(Arc::new(Ok(odd)));
        assert_eq!(a.ask(B, keep_alive()).await, Err(Error::Timeout));
    }
}

#[actix::test]
async fn a_member_says_who_it_is() {
    let (mut a, _b, _relay) = pair().await;
    a.up().await;
    let question = Question { question: Some(question::Question::Info(question::Info {})) };
    let Ok(Answer { answer: Some(answer::Answer::Info(info)) }) = a.ask(B, question).await else {
        panic!("not an answer to the question");
    };
    assert_eq!((info.version.as_str(), info.applied_index), ("3.7.0", 1));
}

#[actix::test]
async fn a_question_that_cannot_be_asked_is_refused_at_once() {
    let (mut a, b, relay) = pair().await;
    a.up().await;
    assert_eq!(a.ask(77, keep_alive()).await, Err(Error::NoLeader), "no such member");
    relay.set(Mode::Cut);
    a.down().await;
    b.oracle.set(Arc::new(Ok(kept())));
    assert_eq!(a.ask(B, keep_alive()).await, Err(Error::NoLeader));
}

#[actix::test]
async fn a_question_without_an_answer_is_given_up() {
    let ask_timeout = Duration::from_millis(200);
    let (mut a, _b, relay) = pair_with(PeerSettings { ask_timeout, ..settings(CLUSTER, A) }).await;
    a.up().await;
    relay.set(Mode::StallAfter(0));
    assert_eq!(a.ask(B, keep_alive()).await, Err(Error::Timeout));
}

#[actix::test]
async fn a_question_on_its_way_when_the_link_breaks_is_answered() {
    let (mut a, _b, relay) = pair().await;
    a.up().await;
    relay.set(Mode::StallAfter(0));
    let (reply, answer) = oneshot::channel();
    a.tell(PeerMessage::Ask { to: B, question: keep_alive(), reply });
    a.settle().await;
    relay.set(Mode::Cut);
    let outcome = within(answer).await.expect("every question is answered");
    assert!(matches!(outcome, Err(Error::Timeout | Error::NoLeader)), "{outcome:?}");
}
