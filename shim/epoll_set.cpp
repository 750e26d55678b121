#include "shim/epoll_set.h"

#include <algorithm>

#include "io/syscalls.h"
#include "shim/file_step.h"
#include "shim/host_lock.h"

namespace ustack::shim {

namespace {

// What an event mask can hold besides poll(2)'s bits: they survive when a one-shot has fired
// (EP_PRIVATE_BITS).
constexpr uint32_t kPrivate = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;
// What EPOLLEXCLUSIVE allows beside itself (EPOLLEXCLUSIVE_OK_BITS).
constexpr uint32_t kBesideExclusive = EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET;
constexpr uint32_t kReadable = ready::kIn | ready::kRdNorm;

}  // namespace

EpollMember::EpollMember(EpollSet& owner, OpenFile& target, int number, const epoll_event& event)
    : WaitEntry(EpollSet::on_event, &owner), file(target), fd(number), data(event.data.u64) {
  interest = event.events | EPOLLERR | EPOLLHUP;
  exclusive = (interest & EPOLLEXCLUSIVE) != 0;
}

EpollSet* EpollSet::create(Arena& arena, int fd) { return arena.create<EpollSet>(arena, fd); }

EpollMember* EpollSet::find(OpenFile& file, int fd) {
  // A file is in few sets, a set may have many files.
  for (EpollMember& member : file.registrations)
    if (&member.set() == this && member.fd == fd) return &member;
  return nullptr;
}

Status EpollSet::add(OpenFile& file, int fd, const epoll_event& event) {
  if ((event.events & EPOLLEXCLUSIVE) != 0 &&
      (file.kind() == Kind::epoll || (event.events & ~(kBesideExclusive | EPOLLEXCLUSIVE)) != 0))
    return Error{EINVAL};
  if (find(file, fd) != nullptr) return Error{EEXIST};
  auto* member = arena_.create<EpollMember>(*this, file, fd, event);
  if (member == nullptr) return Error{ENOMEM};
  members_.push_back(*member);
  file.registrations.push_back(*member);
  file.waiters().add(*member);
  if (pending(*member) != 0) make_ready(*member);
  return {};
}

Status EpollSet::modify(OpenFile& file, int fd, const epoll_event& event) {
  if ((event.events & EPOLLEXCLUSIVE) != 0) return Error{EINVAL};
  EpollMember* member = find(file, fd);
  if (member == nullptr) return Error{ENOENT};
  if (member->exclusive) return Error{EINVAL};
  member->interest = event.events | EPOLLERR | EPOLLHUP;
  member->data = event.data.u64;
  // Also with EPOLLET: what is true already is reported once more (epoll_ctl(2), re-arming).
  if (pending(*member) != 0) make_ready(*member);
  return {};
}

Status EpollSet::remove(OpenFile& file, int fd) {
  EpollMember* member = find(file, fd);
  if (member == nullptr) return Error{ENOENT};
  erase(*member);
  return {};
}

void EpollSet::attach_half(const EpollMember& member, int half) {
  epoll_event event{};
  event.events = member.interest;
  event.data.u64 = member.data;
  if (io::sys::call(SYS_epoll_ctl, fd_, EPOLL_CTL_ADD, half, io::sys::arg(&event)) == 0)
    expect_kernel_members();
}

void EpollSet::erase(EpollMember& member) { arena_.destroy(&member); }

uint32_t EpollSet::pending(const EpollMember& member) {
  if ((member.interest & ~kPrivate) == 0) return 0;
  return member.file.readiness() & member.interest;
}

uint32_t EpollSet::list_of(const EpollMember& member) {
  return std::min<uint32_t>(member.file.asked_under(), kLastList);
}

uint32_t EpollSet::first_list() { return has_shards ? 0 : kLastList; }

uint32_t EpollSet::ready_lists() const {
  uint32_t lists = 0;
  for (uint32_t i = first_list(); i < kLists; ++i) lists |= ready_[i].empty() ? 0 : 1u << i;
  return lists;
}

/// A set asks its members; what else is on the last list is a listener, which can be asked under any lock.
bool EpollSet::needs_all(const EpollMember& member) { return member.file.kind() == Kind::epoll; }

bool EpollSet::needs_all() {
  CommonLock common;
  bool found = false;
  for (const EpollMember& member : ready_[kLastList]) found |= needs_all(member);
  return found;
}

void EpollSet::sort_anew(OpenFile& file) {
  for (EpollMember& member : file.registrations)
    if (static_cast<ListHook<InReady>&>(member).linked())
      member.set().ready_[list_of(member)].push_back(member);
}

bool EpollSet::on_event(WaitEntry& entry, uint32_t events) {
  CommonLock common;
  auto& member = static_cast<EpollMember&>(entry);
  EpollSet& set = member.set();
  const bool exclusive = member.exclusive;
  if ((member.interest & ~kPrivate & events) == 0)
    return !exclusive;  // disabled, or nothing that it asked for
  bool waited_for = !set.waiters_.empty();
  set.make_ready(member);
  if (!exclusive) return true;
  // An exclusive event is only used up when it reached a thread that waits, for what was asked
  // (ep_poll_callback).
  uint32_t direction = events & (EPOLLIN | EPOLLOUT);
  return waited_for && (direction == 0 || (direction & member.interest) != 0);
}

void EpollSet::make_ready(EpollMember& member) {
  if (!static_cast<ListHook<InReady>&>(member).linked()) ready_[list_of(member)].push_back(member);
  waiters_.notify(kReadable);
}

uint32_t EpollSet::readiness() {
  EpollMember* next;
  for (uint32_t i = first_list(); i < kLists; ++i) {
    auto& ready = ready_[i];
    for (EpollMember* member = ready.front(); member != nullptr; member = next) {
      next = ready.next(*member);
      if (pending(*member) != 0) return kReadable;
      ready.remove(*member);
    }
  }
  return 0;
}

void EpollSet::expect_kernel_members() {
  if (kernel_members_) return;
  kernel_members_ = true;
  waiters_.notify(kReadable);
}

bool EpollSet::has_halves() const {
  CommonLock common;
  for (uint32_t i = first_list(); i < kLists; ++i)
    for (EpollMember& member : const_cast<EpollSet*>(this)->ready_[i])
      if (member.file.kernel_half() >= 0) return true;
  return false;
}

bool EpollSet::Skip::operator()(const EpollMember& member) const {
  if (member.file.kernel_half() < 0) return false;
  return halves || std::any_of(reported.begin(), reported.end(),
                               [&](const epoll_event& event) { return event.data.u64 == member.data; });
}

uint32_t EpollSet::begin_wait() {
  CommonLock common;
  if (++waits_ == 0) {
    for (EpollMember& member : members_) member.reported_in = 0;
    waits_ = 1;
  }
  return waits_;
}

size_t EpollSet::collect_whole(uint32_t wait, std::span<epoll_event> out, uint32_t list) {
  Skip skip{.halves = true, .reported = {}};
  return collect_if(wait, out, &skip, list);
}

size_t EpollSet::collect_after(uint32_t wait, std::span<epoll_event> out,
                               std::span<const epoll_event> reported, uint32_t list) {
  Skip skip{.halves = false, .reported = reported};
  return collect_if(wait, out, &skip, list);
}

size_t EpollSet::collect_if(uint32_t wait, std::span<epoll_event> out, const Skip* skip, uint32_t list) {
  CommonLock common;
  size_t count = 0;
  auto& ready = ready_[list];
  // Those that stay ready go to the end of the queue: the last one that is there now ends the round.
  EpollMember* last = ready.back();
  EpollMember* next = ready.front();
  while (next != nullptr && count < out.size()) {
    EpollMember& member = *next;
    next = &member == last ? nullptr : ready.next(member);
    if (needs_all(member) && !covers_all()) continue;
    if (member.reported_in == wait || (skip != nullptr && (*skip)(member))) continue;
    ready.remove(member);
    uint32_t events = pending(member);
    if (events == 0) continue;
    out[count].events = events;
    out[count].data.u64 = member.data;
    ++count;
    member.reported_in = wait;
    if ((member.interest & EPOLLONESHOT) != 0)
      member.interest &= kPrivate;
    else if ((member.interest & EPOLLET) == 0)
      ready.push_back(member);
  }
  return count;
}

void EpollSet::pass_on() {
  CommonLock common;
  if (ready_lists() != 0 && !waiters_.empty()) waiters_.notify(kReadable);
}

void EpollSet::forget(OpenFile& file) {
  while (EpollMember* member = file.registrations.front()) member->set().erase(*member);
}

void EpollSet::close() {
  while (EpollMember* member = members_.front()) erase(*member);
  FileStep::end();
  leave_list();
  arena_.destroy(this);
}

}  // namespace ustack::shim
