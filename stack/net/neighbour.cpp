#include "stack/net/neighbour.h"

namespace ustack {

namespace {

bool is_valid(NeighbourState state) {
  return state != NeighbourState::incomplete && state != NeighbourState::failed;
}

/// What a waiting frame takes of the machine's memory.
uint32_t true_size(const TxFrame& frame) {
  return static_cast<uint32_t>(sizeof(TxFrame)) + frame.payload_bytes();
}

ListHook<ResolutionWaiter>& hook(Waker& waker) { return waker; }

}  // namespace

Neighbour::Neighbour(const IpAddress& address, NeighbourCache& cache)
    : AddressTableEntry(address),
      cache_(cache),
      timer_(
          [](Timer&, void* neighbour, Instant now) {
            auto& self = *static_cast<Neighbour*>(neighbour);
            self.cache_.on_timer(self, now);
          },
          this) {}

NeighbourCache::NeighbourCache(const HostContext& context, NeighbourPort& port)
    : context_(context), port_(port), table_(context.arena, context.random) {}

NeighbourCache::~NeighbourCache() {
  while (Neighbour* neighbour = table_.oldest()) erase(*neighbour);
}

// --- look-up and bounds

Neighbour* NeighbourCache::look_up(const IpAddress& address, NeighbourHint& hint) {
  if (hint.generation == generation_ && hint.entry->address() == address) return hint.entry;
  Neighbour* neighbour = table_.find(address);
  if (neighbour != nullptr) hint = {neighbour, generation_};
  return neighbour;
}

Neighbour* NeighbourCache::look_up_or_create(const IpAddress& address, NeighbourHint& hint) {
  Neighbour* neighbour = look_up(address, hint);
  if (neighbour != nullptr) {
    table_.touch(*neighbour);
    return neighbour;
  }
  neighbour = create(address, true);
  if (neighbour == nullptr) return nullptr;
  hint = {neighbour, generation_};
  start_resolution(*neighbour);
  return neighbour;
}

Neighbour* NeighbourCache::create(const IpAddress& address, bool for_sending) {
  if (!make_room(for_sending)) return nullptr;
  return table_.insert(address, *this);
}

/// The least recently used of those that nobody would miss goes. What others say (!for_sending) costs only
/// stale entries, so that a stranger's chatter can't push out whom we talk to.
bool NeighbourCache::make_room(bool for_sending) {
  auto limit = static_cast<uint32_t>(context_.settings.neigh_gc_thresh3);
  if (table_.size() < limit) return true;
  Neighbour* in_use = nullptr;
  for (Neighbour* neighbour = table_.oldest(); neighbour != nullptr; neighbour = table_.newer(*neighbour)) {
    switch (refresh(*neighbour)) {
      case NeighbourState::stale:
      case NeighbourState::failed:
        erase(*neighbour);
        return true;
      case NeighbourState::reachable:
      case NeighbourState::delay:
        if (in_use == nullptr) in_use = neighbour;
        break;
      case NeighbourState::incomplete:
      case NeighbourState::probe:
        break;
    }
  }
  if (in_use == nullptr || !for_sending) return false;
  erase(*in_use);
  return true;
}

void NeighbourCache::erase(Neighbour& neighbour) {
  ++generation_;
  while (TxFrame* frame = neighbour.queue_.pop_front()) context_.frames.release(frame);
  table_.erase(neighbour);
}

// --- age

/// RFC 4861, 6.3.4: uniform between 0.5 and 1.5 times BaseReachableTime, and a new value now and then (every
/// 300 s, as Linux).
Duration NeighbourCache::reachable_time() {
  int32_t base_ms = context_.settings.neigh_base_reachable_time_ms;
  if (base_ms != reachable_time_base_ms_ || context_.now >= reachable_time_until_) {
    Duration base = std::chrono::milliseconds(base_ms);
    reachable_time_ = base / 2 + Duration(context_.random.u64() % static_cast<uint64_t>(base.count() + 1));
    reachable_time_base_ms_ = base_ms;
    reachable_time_until_ = context_.now + 300s;
  }
  return reachable_time_;
}

bool NeighbourCache::expired(const Neighbour& neighbour) const {
  return neighbour.state_ == NeighbourState::reachable &&
         context_.now - neighbour.confirmed_ >= reachable_time_;
}

NeighbourState NeighbourCache::state(const Neighbour& neighbour) const {
  return expired(neighbour) ? NeighbourState::stale : neighbour.state_;
}

NeighbourState NeighbourCache::refresh(Neighbour& neighbour) {
  reachable_time();
  return neighbour.state_ = state(neighbour);
}

// --- sending

Status NeighbourCache::send(const IpAddress& next_hop, NeighbourHint& hint, TxFrame* frame) {
  Neighbour* neighbour = look_up_or_create(next_hop, hint);
  if (neighbour == nullptr) {
    context_.frames.release(frame);
    ++(next_hop.is_v6() ? context_.counters.Ip6OutDiscards : context_.counters.IpOutDiscards);
    return Error{ENOBUFS};
  }
  switch (refresh(*neighbour)) {
    case NeighbourState::stale:
      // RFC 4861, 7.3.3: the first packet to a stale neighbour starts the delay timer.
      neighbour->state_ = NeighbourState::delay;
      context_.timers.arm(neighbour->timer_, context_.now + kDelayFirstProbe);
      break;
    case NeighbourState::reachable:
    case NeighbourState::delay:
    case NeighbourState::probe:
      break;
    case NeighbourState::failed:
      start_resolution(*neighbour);
      [[fallthrough]];
    case NeighbourState::incomplete:
      enqueue(*neighbour, frame);
      return {};
  }
  port_.transmit_to(frame, neighbour->mac_, next_hop.family());
  return {};
}

void NeighbourCache::enqueue(Neighbour& neighbour, TxFrame* frame) {
  // arp(7), unres_qlen_bytes: the oldest make room. The last to come is kept even if it alone is too big.
  auto limit = static_cast<uint32_t>(context_.settings.neigh_unres_qlen_bytes);
  uint32_t bytes = true_size(*frame);
  while (neighbour.queued_bytes_ + bytes > limit) {
    TxFrame* oldest = neighbour.queue_.pop_front();
    if (oldest == nullptr) break;
    neighbour.queued_bytes_ -= true_size(*oldest);
    context_.frames.release(oldest);
    ++context_.counters.UstackArpQueueDrops;
  }
  neighbour.queue_.push_back(*frame);
  neighbour.queued_bytes_ += bytes;
}

Status NeighbourCache::resolve(const IpAddress& next_hop, NeighbourHint& hint, Waker& waker) {
  Neighbour* neighbour = look_up_or_create(next_hop, hint);
  if (neighbour == nullptr) return Error{ENOBUFS};
  NeighbourState now = refresh(*neighbour);
  bool told = hook(waker).linked();
  hook(waker).unlink();
  if (is_valid(now)) return {};
  if (now == NeighbourState::failed) {
    // Wakers stay with an entry that failed until they have asked why they were asserted.
    if (told) return Error{EHOSTUNREACH};
    start_resolution(*neighbour);
  }
  neighbour->waiters_.push_back(waker);
  return Error{EWOULDBLOCK};
}

void NeighbourCache::remove_waker(Waker& waker) { hook(waker).unlink(); }

bool NeighbourCache::is_resolved(const IpAddress& next_hop, NeighbourHint& hint) {
  const Neighbour* neighbour = look_up(next_hop, hint);
  return neighbour != nullptr && is_valid(neighbour->state_);
}

void NeighbourCache::confirm(const IpAddress& next_hop, NeighbourHint& hint) {
  Neighbour* neighbour = look_up(next_hop, hint);
  if (neighbour == nullptr || !is_valid(neighbour->state_)) return;
  neighbour->confirmed_ = context_.now;
  if (neighbour->state_ == NeighbourState::reachable) return;
  neighbour->state_ = NeighbourState::reachable;
  neighbour->timer_.cancel();
}

bool NeighbourCache::is_dead(const IpAddress& address, NeighbourHint& hint) {
  const Neighbour* neighbour = look_up(address, hint);
  if (neighbour == nullptr) return false;
  return neighbour->state_ == NeighbourState::failed || neighbour->retrying_;
}

void NeighbourCache::revive(const IpAddress& address) {
  Neighbour* neighbour = table_.find(address);
  if (neighbour == nullptr || neighbour->state_ != NeighbourState::failed) return;
  if (context_.now - neighbour->failed_ >= kRevive) start_resolution(*neighbour);
}

// --- resolution

void NeighbourCache::start_resolution(Neighbour& neighbour) {
  neighbour.retrying_ = neighbour.state_ == NeighbourState::failed;
  neighbour.state_ = NeighbourState::incomplete;
  neighbour.probes_ = 1;
  arm_retransmit(neighbour, context_.now);
  port_.solicit(neighbour.address(), nullptr);
}

void NeighbourCache::arm_retransmit(Neighbour& neighbour, Instant now) {
  Duration interval = std::chrono::milliseconds(context_.settings.neigh_retrans_time_ms);
  context_.timers.arm(neighbour.timer_, now + interval);
}

void NeighbourCache::mend() {
  table_.mend();
  for (Neighbour* n = table_.oldest(); n != nullptr; n = table_.newer(*n)) {
    bool asks = n->state_ == NeighbourState::incomplete || n->state_ == NeighbourState::delay ||
                n->state_ == NeighbourState::probe;
    if (asks && !n->timer_.linked()) arm_retransmit(*n, context_.now);
    n->queued_bytes_ = 0;
    for (TxFrame& frame : n->queue_) n->queued_bytes_ += true_size(frame);
  }
}

void NeighbourCache::on_timer(Neighbour& neighbour, Instant now) {
  bool probing = neighbour.state_ != NeighbourState::incomplete;
  if (neighbour.state_ == NeighbourState::delay) {
    neighbour.state_ = NeighbourState::probe;
    neighbour.probes_ = 0;
  }
  const Settings& settings = context_.settings;
  if (neighbour.probes_ >= (probing ? settings.neigh_ucast_solicit : settings.neigh_mcast_solicit)) {
    fail(neighbour);
    return;
  }
  ++neighbour.probes_;
  arm_retransmit(neighbour, now);
  port_.solicit(neighbour.address(), probing ? &neighbour.mac_ : nullptr);
}

void NeighbourCache::fail(Neighbour& neighbour) {
  ++context_.counters.UstackArpFailures;
  context_.log(LogLevel::info,
               [&](LogLine& line) { line << "neighbour " << neighbour.address() << " doesn't answer"; });
  neighbour.state_ = NeighbourState::failed;
  neighbour.retrying_ = false;
  neighbour.failed_ = context_.now;
  neighbour.timer_.cancel();
  for (Waker& waker : neighbour.waiters_) waker.wake();

  // Transports that hear of it may send again and so change, even evict, the entry: it isn't looked at any
  // more.
  FrameQueue dropped;
  dropped.splice_back(neighbour.queue_);
  neighbour.queued_bytes_ = 0;
  while (TxFrame* frame = dropped.pop_front()) {
    ++context_.counters.UstackArpQueueDrops;
    port_.report_unreachable(frame);
  }
}

void NeighbourCache::resolved(Neighbour& neighbour) {
  neighbour.retrying_ = false;
  while (Waker* waker = neighbour.waiters_.pop_front()) waker->wake();
  bool sends = !neighbour.queue_.empty();
  if (sends && neighbour.state_ == NeighbourState::stale) {
    neighbour.state_ = NeighbourState::delay;
    context_.timers.arm(neighbour.timer_, context_.now + kDelayFirstProbe);
  }
  neighbour.queued_bytes_ = 0;
  while (TxFrame* frame = neighbour.queue_.pop_front())
    port_.transmit_to(frame, neighbour.mac_, neighbour.address().family());
}

void NeighbourCache::learn(const IpAddress& address, const MacAddress& mac, Evidence evidence,
                           bool may_create) {
  Neighbour* neighbour = table_.find(address);
  if (neighbour == nullptr) {
    if (!may_create) return;
    neighbour = create(address, false);
    if (neighbour == nullptr) return;
  }
  NeighbourState was = refresh(*neighbour);
  // RFC 4861, 7.2.5: only an answer to what we asked shows that our frames arrive.
  bool confirms =
      evidence == Evidence::answer && (was == NeighbourState::incomplete || was == NeighbourState::probe);
  if (is_valid(was)) {
    bool same = neighbour->mac_ == mac;
    if (same && !confirms) return;
    if (!same && evidence != Evidence::announce && context_.now - neighbour->updated_ < kLockTime) return;
    if (!same) neighbour->updated_ = context_.now;
  } else {
    neighbour->updated_ = context_.now;
  }
  neighbour->mac_ = mac;
  neighbour->timer_.cancel();
  neighbour->state_ = confirms ? NeighbourState::reachable : NeighbourState::stale;
  if (confirms) neighbour->confirmed_ = context_.now;
  if (!is_valid(was)) resolved(*neighbour);
}

}  // namespace ustack
