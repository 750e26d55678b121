// Rest: of a connection on which nothing happens the endpoint keeps what others reach it by, and a record of
// the rest, which is a tenth of it. Whoever has something for it wakes it first (ensure_awake).
//
//   awake --200 ms without anything, where many are awake--> at rest
//     ^                                                         |
//     '--- a segment, a call that concerns it, keepalive -------'
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <utility>

#include "stack/mem/sparse.h"
#include "stack/tcp/endpoint.h"

namespace ustack::tcp {

namespace {

/// Most of a record is 300 to 400 bytes. What needs more isn't worth it.
constexpr size_t kMostRecord = 1024;

constexpr size_t kCacheLine = 64;

/// What a call asks about before it looks for data is as in a socket that nobody has changed.
bool has_plain_answers(const SocketOptions& options) {
  return options.receive_timeout == Duration(0) && options.send_timeout == Duration(0) &&
         options.plain.peek_offset < 0 && !options.plain.tells_unread() && options.times.flags == 0 &&
         !options.times.wants_arrivals();
}

bool quiet(const Sender& snd) {
  return !snd.busy() && snd.idle_flight() && !snd.buffer.reserved() && snd.recovery_deadline() == kNever &&
         snd.pacing_deadline == kNever && snd.persist_deadline == kNever;
}

bool quiet(const Receiver& rcv) {
  return rcv.true_size() == 0 && !rcv.buffer.viewed() && !rcv.fin_received() && !rcv.ack_pending() &&
         !rcv.ack_owed() && rcv.low_water == 1;
}

}  // namespace

Endpoint::~Endpoint() {
  if (awake_ != nullptr) protocol_.context().arena.destroy(awake_->reports);
  protocol_.awakes().destroy(awake_);
  release_record();
}

/// The timer has fired, and nothing else is due. What keeps it awake but for the time since it last did
/// something ends with something that it does, after which it is looked at again (sync_timers).
void Endpoint::look_whether_it_may_rest(Instant now) {
  Instant next = next_deadline();
  if (protocol_.crowded() && may_rest()) {
    const Instant due = std::max(heard_at(), awake_->tcb.snd.last_sent()) + rest_after();
    if (due <= now && rest()) return;
    next = std::min(next, due > now ? due : now + rest_after());
  }
  protocol_.context().timers.arm(timer_, next);
}

/// Nothing is on its way, held, told or waited for, but for what may come of itself.
bool Endpoint::may_rest() const {
  const Tcb& tcb = awake_->tcb;
  if (tcb.state != State::established || awake_->state() != Task::State::idle || handshake_pending_)
    return false;
  if (released_ || awake_->parent != nullptr || early_ || send_shut_ || receive_ended_ || tcb.receive_shut)
    return false;
  if (drained_ || awake_->notifications != 0 || awake_->reports != nullptr || send_contended_ ||
      view_contended_)
    return false;
  if (awake_->ListHook<OwesAck>::linked() || !awake_->queue.empty()) return false;
  if (awake_->early_syn != nullptr || awake_->saved_syn.block) return false;
  for (const Waker* waker : awake_->wakers())
    if (waker->asserted()) return false;
  if (!quiet(tcb.snd) || !quiet(tcb.rcv) || tcb.urgent.phase() != UrgentMark::Phase::none) return false;
  return has_plain_answers(awake_->options);
}

/// False: it stays awake, for want of memory or because the record would be too long.
bool Endpoint::rest() {
  std::array<std::byte, kMostRecord> record;
  alignas(Awake) std::array<std::byte, sizeof(Awake)> room;
  auto* fresh = new (room.data()) Awake(protocol_, *this, id_.local);
  const size_t bytes = write_sparse(awake_, fresh, sizeof(Awake), record);
  fresh->~Awake();
  if (bytes == 0) return false;
  protocol_.context().log(LogLevel::debug, [&](LogLine& line) {
    line << id() << ": at rest, " << static_cast<uint64_t>(bytes) << " bytes";
  });
  auto* kept = static_cast<std::byte*>(protocol_.context().arena.allocate(bytes, 1));
  if (kept == nullptr) return false;
  std::memcpy(kept, record.data(), bytes);
  record_ = kept;
  record_bytes_ = static_cast<uint16_t>(bytes);
  // Who is killed before this is awake, and after it at rest (mend.cpp); a record that was on its way is
  // lost.
  std::atomic_signal_fence(std::memory_order_seq_cst);
  Awake* given_up = std::exchange(awake_, nullptr);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  protocol_.awakes().destroy(given_up);
  ++protocol_.counters().UstackTcpRests;
  protocol_.context().timers.arm(timer_, keepalive_deadline_);
  return true;
}

bool Endpoint::awaken() {
  // It comes from memory while the fresh one is made.
  for (size_t line = 0; line < record_bytes_; line += kCacheLine) __builtin_prefetch(record_ + line);
  Awake* made = protocol_.awakes().create(protocol_, *this, id_.local);
  if (made == nullptr) return false;
  read_sparse(Bytes(record_, record_bytes_), made);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  awake_ = made;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  release_record();
  ++protocol_.counters().UstackTcpAwakenings;
  sync_timers();
  return true;
}

void Endpoint::release_record() {
  protocol_.context().arena.release(std::exchange(record_, nullptr), record_bytes_);
}

}  // namespace ustack::tcp
