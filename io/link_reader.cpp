#include "io/link_reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "io/capture.h"
#include "io/clock.h"
#include "io/syscalls.h"

namespace ustack::io {

namespace {

/// A frame that fits a block smaller than the largest is copied into one of its size: at most 16 KB, hot in
/// the cache, against 68 KB that a receive queue would pin.
constexpr uint32_t kCopyUpTo = BlockPool::kSizes[BlockPool::kSizes.size() - 2];

constexpr long kBulk = 8192;

/// While frames queue up, poll is asked only every so many turns: often enough for the kernel's descriptors
/// and wake-ups, seldom enough not to show.
constexpr uint32_t kUnpolledTurns = 4;

/// What a read can report without the link being gone: a full queue, a peer's ICMP or its absence for now.
bool is_transient(long error) {
  switch (-error) {
    case ENETDOWN:
    case ECONNRESET:
    case ECONNREFUSED:
    case ENOBUFS:
    case ENOMEM:
    case EMSGSIZE:
      return true;
    default:
      return false;
  }
}

}  // namespace

uint32_t LinkReader::buffer_bytes() const {
  uint32_t room = BlockPool::kLargest - link_.read_padding();
  return std::min(room, link_.prefix_length() + 65535 + 64);
}

void LinkReader::prepare() {
  while (ready_ < wanted_) {
    BlockRef block = host_.blocks().allocate(BlockPool::kLargest);
    if (!block) return;
    slots_[ready_++].block = std::move(block);
  }
}

LinkReader::Outcome LinkReader::judge(uint32_t queue, long result) {
  if (result > 0) return Outcome::frame;
  if (result == 0) {  // an empty message, or the end
    pollfd link{link_.fd(queue), POLLIN, 0};
    __kernel_timespec at_once{};
    sys::ppoll(&link, 1, &at_once, nullptr);
    if ((link.revents & (POLLHUP | POLLERR)) == 0) return Outcome::frame;
  } else if (result == -EAGAIN || result == -EINTR || result == -ECANCELED || is_transient(result)) {
    return Outcome::nothing;
  }
  lost_ = true;
  return Outcome::lost;
}

bool LinkReader::read(uint32_t queue, bool all, Instant arrived) {
  bool any = false;
  backlog_ = false;
  while (!lost_) {
    std::byte scrap[64];
    std::byte* buffer = scrap;
    size_t bytes = sizeof scrap;
    bool discard = filled_ == ready_;
    if (discard && filled_ > 0) {
      backlog_ = all;
      backlog_queue_ = queue;
      return any;
    }
    // A buffer that is too short still takes the whole message off the link.
    if (!discard) {
      buffer = slots_[filled_].block->data() + link_.read_padding();
      bytes = buffer_bytes();
    }
    long result = sys::read(link_.fd(queue), buffer, bytes);
    switch (judge(queue, result)) {
      case Outcome::nothing:
        return any;
      case Outcome::lost:
        return true;
      case Outcome::frame:
        break;
    }
    any = true;
    if (discard) {
      if (++discarded_ % 64 == 0) return true;
    } else {
      slots_[filled_].bytes = static_cast<uint32_t>(result);
      slots_[filled_++].arrived = arrived;
    }
    // A superframe seldom comes alone, and next to it a read in vain costs nothing.
    if (result >= kBulk) {
      all = true;
      expect_more();
    }
    if (!all) return true;
  }
  return any;
}

bool LinkReader::read_backlog(Instant arrived) {
  if (!backlog_ || unpolled_ == kUnpolledTurns) {
    unpolled_ = 0;
    return false;
  }
  ++unpolled_;
  return read(backlog_queue_, true, arrived);
}

WaitResult LinkReader::wait(bool link_full, const WaitRequest& request, Duration spin) {
  WaitResult result;
  if (backlog_ && read_backlog(now())) {
    report(result);
    return result;
  }
  PollOutcome polled =
      wait_set_.wait(link_, lost_ ? 0 : request.queues, link_full, request, spin_.next(spin));
  spin_.note(polled.spin);
  if (polled.readable != 0) {
    if (!polled.slept) expect_more();
    for (uint32_t queue = 0; queue < link_.queues(); ++queue)
      if ((polled.readable & 1u << queue) != 0) read(queue, wants_all(), polled.at);
    report(polled.result);
  }
  return polled.result;
}

void LinkReader::report(WaitResult& result) {
  result.frames = filled_ > 0;
  if (lost_ && !loss_reported_) result.link_lost = loss_reported_ = true;
}

BlockRef LinkReader::take_block() {
  if (ready_ == filled_) return {};
  return std::move(slots_[--ready_].block);
}

bool LinkReader::took(uint32_t queue, BlockRef& block, long result, Instant arrived) {
  switch (judge(queue, result)) {
    case Outcome::nothing:
      return false;
    case Outcome::lost:
      return true;
    case Outcome::frame:
      break;
  }
  if (filled_ < ready_) slots_[ready_].block = std::move(slots_[filled_].block);
  ++ready_;
  slots_[filled_].block = std::move(block);
  slots_[filled_].bytes = static_cast<uint32_t>(result);
  slots_[filled_++].arrived = arrived;
  if (result >= kBulk) expect_more();
  return true;
}

void LinkReader::deliver(Instant now) {
  host_.counters().UstackRxNoMemory += discarded_;
  discarded_ = 0;
  for (uint32_t i = 0; i < filled_; ++i) deliver_one(slots_[i], now);

  // Blocks that were handed over leave gaps; what is left moves to the front.
  uint32_t kept = 0;
  for (uint32_t i = 0; i < ready_; ++i) {
    if (!slots_[i].block) continue;
    if (kept != i) slots_[kept].block = std::move(slots_[i].block);
    ++kept;
  }
  if (filled_ <= 1 && !backlog_) wanted_ = 1;
  filled_ = 0;
  ready_ = kept;
  while (ready_ > wanted_) slots_[--ready_].block.reset();
}

void LinkReader::deliver_one(Slot& slot, Instant now) {
  uint32_t prefix = link_.prefix_length();
  Block* block = slot.block.get();
  const std::byte* start = block->data() + link_.read_padding();
  uint32_t length = slot.bytes > prefix ? slot.bytes - prefix : 0;

  RxFrame frame;
  if (length == 0 || slot.bytes >= buffer_bytes() || !link_.decode(start, length, &frame.offload)) {
    ++host_.counters().UstackRxMalformed;
    return;
  }
  frame.arrived = slot.arrived;
  // The same alignment of the IP header in the copy as in what was read.
  uint32_t padding = (link_.read_padding() + prefix) % 4;
  if (length + padding <= kCopyUpTo) {
    BlockRef copy = host_.blocks().allocate(length + padding);
    if (!copy) {
      ++host_.counters().UstackRxNoMemory;
      return;
    }
    std::memcpy(copy->data() + padding, start + prefix, length);
    frame.data = Slice{std::move(copy), padding, length};
  } else {
    frame.data = Slice{std::move(slot.block), link_.read_padding() + prefix, length};
  }
  if (link_.capture != nullptr) link_.capture->received(frame);
  host_.receive(std::move(frame), now);
}

void LinkReader::release_all() {
  while (ready_ > 0) slots_[--ready_].block.reset();
  filled_ = 0;
}

}  // namespace ustack::io
