#include "io/uring_engine.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "io/capture.h"
#include "io/clock.h"
#include "io/poll_once.h"
#include "io/syscalls.h"

namespace ustack::io {

namespace {

constexpr unsigned kEntries = 128;
/// "No time-out": a wait that long is indistinguishable, and the ring's calls stay of one kind.
constexpr Duration kLongest = 1h;

constexpr int kLinkFile = 0;  // in the registered files

}  // namespace

int UringEngine::start() {
  int result = io_uring_queue_init(kEntries, &ring_, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
  if (result < 0) return result;
  started_ = true;
  owner_thread_ = sys::call(SYS_gettid);
  // A child must not see the ring's memory: it would be its parent's ring.
  io_uring_ring_dontfork(&ring_);
  Descriptor ring_fd(ring_.ring_fd);
  (void)move_high(ring_fd);
  ring_.ring_fd = ring_.enter_ring_fd = ring_fd.release();
  io_uring_register_ring_fd(&ring_);
  if ((ring_.features & IORING_FEAT_EXT_ARG) == 0) return -ENOSYS;
  int fd = link_.fd(queue_);
  return io_uring_register_files(&ring_, &fd, 1);
}

EngineKind UringEngine::kind() const {
  if (only_) return EngineKind::uring;
  return refused_ ? EngineKind::plain : EngineKind::automatic;
}

bool UringEngine::ring_ready() {
  if (started_ || refused_) return started_;
  if (start() >= 0) return true;
  refused_ = true;
  if (started_) {
    remove_own_descriptor(ring_.ring_fd);
    io_uring_queue_exit(&ring_);
  }
  return started_ = false;
}

// The prep functions of liburing reset an entry, so tag and flags come after them.
io_uring_sqe* UringEngine::entry() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  // kEntries holds all that one wait can arm; more would be an error of ours.
  if (sqe == nullptr) __builtin_trap();
  return sqe;
}

void UringEngine::tag(io_uring_sqe* sqe, Tag which, uint64_t detail) {
  io_uring_sqe_set_data64(sqe, detail << 8 | which);
}

void UringEngine::cancel(Tag which, uint64_t detail) {
  io_uring_sqe* sqe = entry();
  io_uring_prep_poll_remove(sqe, detail << 8 | which);
  tag(sqe, kCancel);
}

// Out

void UringEngine::stage(TxFrame* frame) {
  Transmission& t = transmissions_[staged_];
  uint32_t count = gather(link_, *frame, t.parts);
  if (count == 0) {
    finish_transmission(host_, link_, frame, -EMSGSIZE);
    return;
  }
  t.frame = frame;
  t.result = -ECANCELED;
  io_uring_sqe* sqe = entry();
  io_uring_prep_writev(sqe, kLinkFile, t.parts.data(), count, 0);
  sqe->flags |= IOSQE_FIXED_FILE;
  tag(sqe, kTransmission, staged_);
  ++staged_;
}

void UringEngine::note(Holdings& holdings) const {
  reader_.note(holdings);
  holdings.add(read_block_);
  for (uint32_t i = 0; i < staged_; ++i) holdings.add(transmissions_[i].frame);
}

void UringEngine::transmit() {
  Changing changing(*this);
  if (staged_ > 0) {  // a second transmit() without a wait(): what is staged goes first
    io_uring_submit(&ring_);
    reap(now(), early_);
    finish_transmissions();
  }
  FrameQueue& queue = host_.transmit_queue();
  uint32_t count = 0;
  for (TxFrame* frame = queue.front(); frame != nullptr; frame = queue.next(*frame)) ++count;
  blocked_ = false;
  // A socket may be full in the middle of a batch: written one by one, its frames keep their order.
  if (count < kRingFrom || staged_ > 0 || link_.is_socket() || !ring_ready()) {
    blocked_ = !io::transmit(host_, link_);
  } else {
    if (count > kTransmitSlots) blocked_ = !io::transmit(host_, link_, count - kTransmitSlots);
    while (!blocked_ && staged_ < kTransmitSlots) {
      TxFrame* frame = queue.pop_front();
      if (frame == nullptr) break;
      stage(frame);
    }
  }
  reader_.prepare();
  if (started_ && !read_block_) {
    read_block_ = reader_.take_block();
    reader_.prepare();
  }
  if (link_.capture != nullptr) link_.capture->flush();
}

/// Gives finished frames back, in order; those that found the link full are queued again, in order too.
void UringEngine::finish_transmissions() {
  if (staged_ == 0 || written_ < staged_) return;
  auto again = [](const Transmission& t) { return t.result == -EAGAIN || t.result == -ECANCELED; };
  for (uint32_t i = 0; i < staged_; ++i) {
    Transmission& t = transmissions_[i];
    if (!again(t)) finish_transmission(host_, link_, t.frame, t.result);
  }
  for (uint32_t i = staged_; i-- > 0;) {
    Transmission& t = transmissions_[i];
    if (again(t)) finish_transmission(host_, link_, t.frame, t.result);
  }
  staged_ = written_ = 0;
}

// What the ring watches

void UringEngine::arm_link() {
  if (reader_.lost()) return;
  if (!link_armed_) {
    io_uring_sqe* poll = entry();
    io_uring_prep_poll_add(poll, kLinkFile, POLLIN);
    poll->flags |= IOSQE_FIXED_FILE;
    tag(poll, kLinkPoll);
    read_armed_ = static_cast<bool>(read_block_);
    // Without a block to read into the poll alone ends the wait, and the frames are dropped.
    if (read_armed_) {
      // Only the read's completion is to end the sleep: the poll's would end it before the read was done.
      poll->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
      io_uring_sqe* read = entry();
      // The link is O_NONBLOCK, so a read that finds nothing ends at once (as RWF_NOWAIT would make it).
      io_uring_prep_read(read, kLinkFile, read_block_->data() + link_.read_padding(), reader_.buffer_bytes(),
                         0);
      read->flags |= IOSQE_FIXED_FILE;
      tag(read, kLinkRead);
    }
    link_armed_ = true;
  }
  if (blocked_ && !room_armed_) {
    io_uring_sqe* poll = entry();
    io_uring_prep_poll_add(poll, kLinkFile, POLLOUT);
    poll->flags |= IOSQE_FIXED_FILE;
    tag(poll, kLinkRoom);
    room_armed_ = true;
  }
}

void UringEngine::arm_watch(Watch& watch, Tag which, int fd) {
  if (watch.fd == fd) return;
  if (watch.fd >= 0) cancel(which, watch.serial);
  watch.fd = fd;
  ++watch.serial;
  if (fd < 0) return;
  io_uring_sqe* poll = entry();
  io_uring_prep_poll_add(poll, fd, POLLIN);
  tag(poll, which, watch.serial);
}

void UringEngine::forget(int kernel_fd) {
  reader_.forget(kernel_fd);
  if (kernel_.fd < 0 || (kernel_.fd != kernel_fd && kernel_fd != -1)) return;
  if (sys::call(SYS_gettid) != owner_thread_) return;
  arm_watch(kernel_, kKernel, -1);
  io_uring_submit(&ring_);
}

// What came out of it

void UringEngine::complete(const io_uring_cqe& cqe, Instant at, Harvest& harvest, WaitResult& result) {
  uint64_t detail = cqe.user_data >> 8;
  auto which = static_cast<Tag>(cqe.user_data & 0xff);
  harvest.any |= which != kTransmission;
  switch (which) {
    case kTransmission:
      transmissions_[detail].result = cqe.res;
      ++written_;
      break;
    case kLinkPoll: {
      // With a read behind it only its failure is posted, and then the read's is not
      // (IOSQE_CQE_SKIP_SUCCESS).
      link_armed_ = false;
      bool alone = !read_armed_;
      read_armed_ = false;
      if (alone) harvest.link |= reader_.read(queue_, false, at);
      break;
    }
    case kLinkRead:
      link_armed_ = read_armed_ = false;
      harvest.link |= reader_.took(queue_, read_block_, cqe.res, at);
      break;
    case kLinkRoom:
      room_armed_ = false;
      break;
    case kWake:
      if (detail != wake_.serial) break;
      if (cqe.res >= 0) {
        uint64_t value;
        sys::read(wake_.fd, &value, sizeof value);
        result.woken = true;
      }
      wake_.fd = -1;
      break;
    case kKernel:
      if (detail != kernel_.serial) break;
      kernel_.fd = -1;
      result.kernel = true;
      break;
    case kCancel:
      break;
  }
}

UringEngine::Harvest UringEngine::reap(Instant at, WaitResult& result) {
  Harvest harvest;
  for (;;) {
    io_uring_cqe* cqes[32];
    unsigned count = io_uring_peek_batch_cqe(&ring_, cqes, 32);
    if (count == 0) return harvest;
    for (unsigned i = 0; i < count; ++i) complete(*cqes[i], at, harvest, result);
    io_uring_cq_advance(&ring_, count);
  }
}

// Waiting

WaitResult UringEngine::wait(const WaitRequest& request) {
  WaitResult result = std::exchange(early_, {});
  bool early = result.woken || result.kernel;
  Instant begin = now();
  if (staged_ == 0 && !early) {
    if (!only_ || spin_ > Duration(0) || request.queues != 1u << queue_ || request.room)
      return reader_.wait(blocked_ || request.room, request, spin_);
    if (reader_.read_backlog(begin)) {
      reader_.report(result);
      return result;
    }
  }

  arm_link();
  arm_watch(wake_, kWake, request.wake_fd);
  arm_watch(kernel_, kKernel, request.kernel_fd);
  Duration time_out = request.deadline == kNever ? kLongest : request.deadline - begin;
  time_out = early ? Duration(0) : std::clamp(time_out, Duration(0), kLongest);
  __kernel_timespec timeout{time_out.count() / 1'000'000'000, time_out.count() % 1'000'000'000};
  io_uring_cqe* cqe = nullptr;
  // Writes to a TAP complete while they are submitted; the one completion more is what is waited for.
  int entered = io_uring_submit_and_wait_timeout(&ring_, &cqe, staged_ - written_ + 1, &timeout,
                                                 const_cast<sigset_t*>(request.signal_mask));
  Instant at = now();
  bool slept = at - begin >= kSleptAtLeast;
  Harvest harvest = reap(at, result);
  if (harvest.link && !reader_.lost() && (!slept || reader_.wants_all())) {
    if (!slept) reader_.expect_more();
    reader_.read(queue_, true, at);
  }
  reader_.report(result);
  result.timed_out = at >= request.deadline;
  // A signal that ends the sleep of a call that has also submitted something is reported by neither the
  // kernel nor liburing. It is the only cause left when nothing came and the time isn't up.
  result.interrupted = entered == -EINTR || (!harvest.any && at < begin + time_out);
  return result;
}

void UringEngine::deliver(Instant now) {
  Changing changing(*this);
  if (written_ < staged_) reap(now, early_);
  finish_transmissions();
  reader_.deliver(now);
}

// The end

void UringEngine::unmap_ring() {
  sys::munmap(ring_.sq.sqes, ring_.sq.ring_entries * sizeof(io_uring_sqe));
  if (ring_.cq.ring_ptr != nullptr && ring_.cq.ring_ptr != ring_.sq.ring_ptr)
    sys::munmap(ring_.cq.ring_ptr, ring_.cq.ring_sz);
  sys::munmap(ring_.sq.ring_ptr, ring_.sq.ring_sz);
}

void UringEngine::tear_down(bool owner) {
  reader_.close_descriptors();
  if (!started_) {
    if (owner) reader_.release_all();
    return;
  }
  started_ = false;
  remove_own_descriptor(ring_.ring_fd);
  if (!owner) {
    // The ring's memory is not mapped here (dontfork); its descriptor is.
    sys::close(ring_.ring_fd);
    return;
  }
  if (sys::call(SYS_gettid) == owner_thread_) {
    // Frames that were staged go out, and the armed read is called back, so that its block is free.
    if (link_armed_) cancel(kLinkPoll);
    for (int turn = 0; turn < 10 && (link_armed_ || written_ < staged_); ++turn) {
      __kernel_timespec timeout{0, 10'000'000};
      io_uring_cqe* cqe = nullptr;
      io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &timeout, nullptr);
      reap(now(), early_);
    }
    written_ = staged_;
    finish_transmissions();
    reader_.deliver(host_.now());
    io_uring_queue_exit(&ring_);
  } else {
    // liburing would take the registered ring of the calling thread, whose ring this is not.
    unmap_ring();
    sys::close(ring_.ring_fd);
  }
  read_block_.reset();
  reader_.release_all();
}

}  // namespace ustack::io
