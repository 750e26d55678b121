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
  auto see = [&](Segment& segment) {
    Slab<Segment>::see(segment);
    census.see(segment.payload);
  };
  queue_.for_each(see);
  if (early_syn_ != nullptr) see(*early_syn_);
  census.see(saved_syn_);
  tcb_.snd.show(census);
  tcb_.rcv.show(census);
  if (reports_ != nullptr) reports_->show(census);
}

void Endpoint::mend_timer_and_wakers() {
  protocol_.context().timers.mend(timer_);
  if (!timer_.armed()) on_deadline(timer_, this, protocol_.now());  // perhaps it had fired just then
  uint32_t marks = 0;
  for (Waker* waker : wakers()) marks += waker->mend() ? 1 : 0;
  if (state() == Task::State::suspended) return;  // other wakers count as well
  mend_marks(marks);
  if (marks > 0) make_ready();
}

/// The peer learns of it, and the program: the connection is reset.
void Endpoint::break_off() {
  protocol_.context().log(LogLevel::error, [&](LogLine& line) {
    line << id() << ": a process was killed while it worked on this connection, which is reset";
  });
  if (is_synchronized(tcb_.state)) send_reset();
  if (parent_ != nullptr && parent_->listener_ != nullptr) {  // nobody has accepted it
    parent_ = nullptr;
    static_cast<ListHook<AcceptTag>&>(*this).unlink();
    released_ = true;
  }
  connecting_ = connecting_ == Connecting::under_way ? Connecting::failed : connecting_;
  handshake_pending_ = false;
  done(ECONNRESET);
}

bool Endpoint::mend(bool changing) {
  const bool broken = protocol_.context().scheduler.mend(*this) || changing;
  queue_bytes_ = 0;
  for (Segment& segment : queue_)
    queue_bytes_ += segment.payload_size() + static_cast<uint32_t>(sizeof(Segment));
  if (listener_ != nullptr) {
    listener_->half_open_count = listener_->ready_count = 0;
    for ([[maybe_unused]] Endpoint& child : listener_->half_open) ++listener_->half_open_count;
    for ([[maybe_unused]] Endpoint& child : listener_->ready) ++listener_->ready_count;
  }
  if (broken && state() == Task::State::suspended) {
    notify(kNotifyClose);  // its handshake goes on, to end
  } else if (broken && listener_ == nullptr && tcb_.state != State::listen) {
    undrain_.forsake();  // whose sleeper was on the stack
    break_off();
  } else if (tcb_.state == State::closed && connected() && !handshake_pending_) {
    // On its way into the table or out of it.
    break_off();
  }
  mend_timer_and_wakers();
  if (!queue_.empty()) new_segment_.wake();
  return free_now();
}

void Protocol::begin_census() {
  segments_.slab().begin_census();
  pieces_.slab().begin_census();
  sent_segments_.begin_census();
}

void Protocol::show(Census& census) {
  endpoints_.for_each([&](Endpoint& endpoint) { endpoint.show(census); });
}

uint64_t Protocol::unseen() {
  return segments_.slab().unseen() + pieces_.slab().unseen() + sent_segments_.unseen();
}

void Protocol::end_census() {
  segments_.slab().end_census();
  pieces_.slab().end_census();
  sent_segments_.end_census();
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
  });
  time_waits_.for_each([this](TimeWait& time_wait) {
    connections_.mend(time_wait);
    PortTable::mend(time_wait.port());
    time_wait.mend();
  });
  uint64_t charged = 0;
  endpoints_.for_each([&](Endpoint& endpoint) {
    charged += endpoint.tcb_.snd.buffer.true_size() + endpoint.tcb_.rcv.true_size();
  });
  context_.blocks.recount(charged);
  endpoints_.for_each([&](Endpoint& endpoint) {
    if (endpoint.mend(&endpoint == changed)) destroy_endpoint(endpoint);
  });
}

void Protocol::release_lost() {
  for (;;) {
    Endpoint* lost = nullptr;
    endpoints_.for_each([&](Endpoint& endpoint) {
      if (!endpoint.owned && !endpoint.released_ && endpoint.parent_ == nullptr) lost = &endpoint;
    });
    if (lost == nullptr) return;
    lost->release();
  }
}

}  // namespace ustack::tcp
