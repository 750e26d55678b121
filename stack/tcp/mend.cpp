// What a process leaves that was killed in the middle of a change of the host. Lists are whole (ListJournal),
// slabs know who is alive; everything else that can be derived is, and what was being changed is reset.
#include "stack/host.h"
#include "stack/tcp/endpoint.h"
#include "stack/tcp/listener.h"
#include "stack/tcp/reports.h"
#include "stack/tcp/time_wait.h"

namespace ustack::tcp {

void TimeWait::mend() {
  if (!timer_.linked()) restart();
}

void Endpoint::show(Census& census) {
  if (!awake()) return;
  if (awake_->reports != nullptr) awake_->reports->show(census);
  Slab<Awake>::see(*awake_);
  auto see = [&](Segment& segment) {
    Slab<Segment>::see(segment);
    census.see(segment.payload);
  };
  awake_->queue.for_each(see);
  if (awake_->early_syn != nullptr) see(*awake_->early_syn);
  census.see(awake_->saved_syn);
  awake_->tcb.snd.show(census);
  awake_->tcb.rcv.show(census);
}

void Endpoint::mend_wakers() {
  uint32_t marks = 0;
  for (Waker* waker : awake_->wakers()) marks += waker->mend() ? 1 : 0;
  if (awake_->state() == Task::State::suspended) return;  // other wakers count as well
  awake_->mend_marks(marks);
  if (marks > 0) awake_->make_ready();
}

/// The peer learns of it, and the program: the connection is reset.
void Endpoint::break_off() {
  protocol_.context().log(LogLevel::error, [&](LogLine& line) {
    line << id() << ": a process was killed while it worked on this connection, which is reset";
  });
  if (is_synchronized(awake_->tcb.state)) send_reset();
  if (awake_->parent != nullptr && awake_->parent->listener() != nullptr) {  // nobody has accepted it
    awake_->parent = nullptr;
    static_cast<ListHook<ListenerTag>&>(*this).unlink();
    released_ = true;
  }
  connecting_ = connecting_ == Connecting::under_way ? Connecting::failed : connecting_;
  handshake_pending_ = false;
  done(ECONNRESET);
}

bool Endpoint::mend(bool changing) {
  if (!awake()) {
    // Nothing can have been in the middle of a change.
    protocol_.context().timers.mend(timer_);
    if (!timer_.armed()) protocol_.context().timers.arm(timer_, keepalive_deadline_);
    return false;
  }
  release_record();  // of one that was going to rest, or had just been woken
  const bool broken = protocol_.context().scheduler.mend(*awake_) || changing;
  awake_->queue_bytes = 0;
  for (Segment& segment : awake_->queue)
    awake_->queue_bytes += segment.payload_size() + static_cast<uint32_t>(sizeof(Segment));
  if (awake_->listener != nullptr) {
    awake_->listener->half_open_count = 0;
    awake_->listener->ready_count = 0;
    for ([[maybe_unused]] Endpoint& child : awake_->listener->half_open) ++awake_->listener->half_open_count;
    for ([[maybe_unused]] Endpoint& child : awake_->listener->ready) awake_->listener->count_ready(1);
    awake_->listener->note_first();
  }
  if (broken && awake_->state() == Task::State::suspended) {
    notify(kNotifyClose);  // its handshake goes on, to end
  } else if (broken && awake_->listener == nullptr && awake_->tcb.state != State::listen) {
    awake_->undrain.forsake();  // whose sleeper was on the stack
    break_off();
  } else if (awake_->tcb.state == State::closed && connected() && !handshake_pending_) {
    // On its way into the table or out of it.
    break_off();
  }
  mend_wakers();
  if (!awake_->queue.empty()) awake_->new_segment.wake();
  protocol_.context().timers.mend(timer_);
  if (!timer_.armed()) on_deadline(timer_, this, protocol_.now());  // perhaps it had fired just then
  return free_now();
}

void Protocol::begin_census() {
  segments_.slab().begin_census();
  pieces_.slab().begin_census();
  sent_segments_.begin_census();
  awakes_.begin_census();
}

void Protocol::show(Census& census) {
  endpoints_.for_each([&](Endpoint& endpoint) { endpoint.show(census); });
}

uint64_t Protocol::unseen() {
  return segments_.slab().unseen() + pieces_.slab().unseen() + sent_segments_.unseen() + awakes_.unseen();
}

void Protocol::end_census() {
  segments_.slab().end_census();
  pieces_.slab().end_census();
  sent_segments_.end_census();
  awakes_.end_census();
}

void Protocol::mend() {
  Endpoint* changed = std::exchange(changing, nullptr);
  endpoints_.mend();
  time_waits_.mend();
  fast_open_.mend();
  connections_.mend();
  ports_.mend();
  closing_ = 0;
  endpoints_.for_each([this](Endpoint& endpoint) {
    connections_.mend(endpoint);
    PortTable::mend(endpoint.port_);
    closing_ += endpoint.counted_closing_ ? 1 : 0;
    // What it had is nobody's now (take_census).
    if (endpoint.awake() && endpoint.tcb_in_making_) endpoint.make_tcb();
  });
  time_waits_.for_each([this](TimeWait& time_wait) {
    connections_.mend(time_wait);
    PortTable::mend(time_wait.port());
    time_wait.mend();
  });
  uint64_t charged = 0;
  endpoints_.for_each([&](Endpoint& endpoint) {
    if (endpoint.awake())
      charged += endpoint.awake_->tcb.snd.buffer.true_size() + endpoint.awake_->tcb.rcv.true_size();
  });
  context_.blocks.recount(charged);
  endpoints_.for_each([&](Endpoint& endpoint) {
    if (endpoint.mend(&endpoint == changed)) destroy_endpoint(endpoint);
  });
}

/// Of a sibling: the listener whose it is knows it. Whoever was killed while it opened or closed one has left
/// it without.
bool Protocol::has_eldest(Endpoint& sibling) {
  bool found = false;
  for (uint8_t i = 0; i < context_.shards->count(); ++i)
    of_shard(i).endpoints_.for_each([&](Endpoint& endpoint) {
      found |= &endpoint == sibling.listener()->eldest && endpoint.awake() &&
               endpoint.listener() != nullptr && endpoint.listener()->siblings[context_.shard] == &sibling;
    });
  return found;
}

void Protocol::release_lost() {
  for (;;) {
    Endpoint* lost = nullptr;
    endpoints_.for_each([&](Endpoint& endpoint) {
      if (!endpoint.owned && !endpoint.released_ && endpoint.parent() == nullptr &&
          (!endpoint.is_sibling() || !has_eldest(endpoint)))
        lost = &endpoint;
    });
    if (lost == nullptr) return;
    lost->release();
  }
}

}  // namespace ustack::tcp
