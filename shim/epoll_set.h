// epoll(7). A set is the kernel's own epoll descriptor, which holds the kernel's members, and beside it, from
// the first member of ours on, an EpollSet on the same number, which holds those.
//
//       program: epoll_wait(E)
//                  |
//        .---------+----------.                 A file with a half in the kernel (a nested set, a listener's
//        v                    v                 loopback twin) is in both: once here, once there under the
//    EpollSet (ours)     kernel's set E         same data; collect() leaves out here what the kernel's half
//      members ready      its ready list        has just reported.
//
// A placeholder is never put into the kernel's set: a later dup2 over it would leave the registration behind.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

#include "shim/open_file.h"
#include "stack/mem/arena.h"
#include "stack/shards.h"

namespace ustack::shim {

class EpollSet;
struct OfSet;    // tag: all members of one set
struct InReady;  // tag: members of one set that may have something to report

/// One registration: a descriptor number together with the open file it meant (epoll(7) Q1), on whose waiters
/// it is. Its interest is as registered, with EPOLLERR and EPOLLHUP; without any bit of poll(2) after a
/// one-shot has fired.
struct EpollMember : ListHook<OfFile>, ListHook<OfSet>, ListHook<InReady>, WaitEntry {
  EpollMember(EpollSet& owner, OpenFile& target, int number, const epoll_event& event);
  EpollSet& set() const { return *static_cast<EpollSet*>(context()); }

  OpenFile& file;
  int fd;
  /// The wait it was last reported in: none is reported twice in one.
  uint32_t reported_in = 0;
  uint64_t data;
};
// A server has many of them.
static_assert(sizeof(EpollMember) <= 112);

/// Our members of one epoll descriptor. Lock: the host's; of shards the common one, and to look at a ready
/// list's members what that says.
class EpollSet final : public OpenFile {
 public:
  /// In `arena`, with one reference. `fd` is the kernel's descriptor. nullptr: no memory.
  static EpollSet* create(Arena& arena, int fd);

  /// EPOLL_CTL_ADD: EEXIST, EINVAL (EPOLLEXCLUSIVE with what it excludes), ENOMEM.
  Status add(OpenFile& file, int fd, const epoll_event& event);
  /// EPOLL_CTL_MOD: ENOENT, EINVAL (EPOLLEXCLUSIVE).
  Status modify(OpenFile& file, int fd, const epoll_event& event);
  /// EPOLL_CTL_DEL: ENOENT.
  Status remove(OpenFile& file, int fd);
  /// Registers a member's half, a descriptor of the kernel's, in the kernel's set as well.
  void attach_half(const EpollMember& member, int half);
  /// The registration of that number for that file, nullptr if there is none.
  EpollMember* find(OpenFile& file, int fd);

  bool empty() const { return const_cast<EpollSet*>(this)->members_.empty(); }

  /// A number for one epoll_wait: members reported under it are not reported again.
  uint32_t begin_wait();
  /// Reports up to out.size() members that are ready now, the longest waiting first, as epoll_wait does
  /// (level- triggered ones go to the end of the queue, one-shot ones are disabled).
  size_t collect(uint32_t wait, std::span<epoll_event> out) {
    return collect_if(wait, out, nullptr, kLastList);
  }
  /// The same of members on a list without a half in the kernel only.
  size_t collect_whole(uint32_t wait, std::span<epoll_event> out, uint32_t list = kLastList);
  /// The same after the kernel was asked: a member with a kernel half whose data is among `reported`, what
  /// the kernel has just told for this wait, waits for the next time.
  size_t collect_after(uint32_t wait, std::span<epoll_event> out, std::span<const epoll_event> reported,
                       uint32_t list = kLastList);
  /// Something was left over: wakes the next thread in epoll_wait.
  void pass_on();
  /// Whether collect() may have something.
  bool may_be_ready() const { return ready_lists() != 0; }
  /// Ready members are on lists by what a lock has to cover for them to be looked at: a shard, or all of the
  /// host, which is the last list and where there is one shard the only one. A bit for each with members.
  uint32_t ready_lists() const;
  static constexpr uint32_t kLists = Shards::kMost + 1, kLastList = kLists - 1;
  /// On the last list is something that only a lock on all lets be looked at.
  bool needs_all();
  /// A file has come to another shard, or begun to listen.
  static void sort_anew(OpenFile& file);

  /// The kernel's set has (or may have) members too, so that it is asked and waited for. Who sleeps without
  /// it looks again when the first comes.
  bool has_kernel_members() const { return kernel_members_; }
  void expect_kernel_members();
  /// Some member of ours has a half in the kernel.
  bool has_halves() const;
  /// Whose turn it is to fill the caller's array first: the kernel's members or ours.
  std::atomic<bool> kernel_first = false;
  /// The kernel's members had something when they were last asked.
  std::atomic<bool> kernel_gave = true;

  /// The kernel's descriptor, in the process that has made the set or inherited it.
  int kernel_half() const override { return fd_; }
  uint32_t readiness() override;
  WaitQueue& waiters() override { return waiters_; }

  /// Ends all registrations of `file`: it is closed, or is not ours any more.
  static void forget(OpenFile& file);

 protected:
  void close() override;

 private:
  friend class ustack::Arena;
  EpollSet(Arena& arena, int fd) : OpenFile(Kind::epoll), arena_(arena), fd_(fd) { enlist(); }
  static bool on_event(WaitEntry& entry, uint32_t events);
  void erase(EpollMember& member);
  void make_ready(EpollMember& member);
  struct Skip {
    bool halves;
    std::span<const epoll_event> reported;
    bool operator()(const EpollMember& member) const;
  };
  size_t collect_if(uint32_t wait, std::span<epoll_event> out, const Skip* skip, uint32_t list);
  static uint32_t list_of(const EpollMember& member);
  static uint32_t first_list();
  static bool needs_all(const EpollMember& member);
  /// What of its interest is true now.
  static uint32_t pending(const EpollMember& member);

  Arena& arena_;
  IntrusiveList<EpollMember, OfSet> members_;
  std::array<IntrusiveList<EpollMember, InReady>, kLists> ready_;
  WaitQueue waiters_;
  /// Comes round after a thousand waits, so that every test of some length sees it (as INITIAL_JIFFIES).
  uint32_t waits_ = 0u - 1000u;
  int fd_;
  std::atomic<bool> kernel_members_ = false;

  friend struct EpollMember;
};

}  // namespace ustack::shim
