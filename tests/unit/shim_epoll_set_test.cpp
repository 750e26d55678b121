// The rules of epoll(7) on members of ours, without threads and kernel.
#include "shim/epoll_set.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "tests/support/heap_arena.h"

namespace ustack::shim {
namespace {

/// A file whose readiness the test decides.
class FakeFile final : public OpenFile {
 public:
  explicit FakeFile(Arena& arena, bool* closed, int half)
      : OpenFile(Kind::socket), arena_(arena), closed_(closed), half_(half) {}
  uint32_t readiness() override { return events_; }
  WaitQueue& waiters() override { return waiters_; }
  int kernel_half() const override { return half_; }

  void become(uint32_t events) {
    uint32_t fresh = events & ~events_;
    events_ = events;
    if (fresh != 0) waiters_.notify(fresh);
  }
  /// Something has come again that was there already: more data.
  void again(uint32_t events) { waiters_.notify(events); }

 protected:
  void close() override {
    if (closed_ != nullptr) *closed_ = true;
    arena_.destroy(this);
  }

 private:
  Arena& arena_;
  uint32_t events_ = 0;
  WaitQueue waiters_;
  bool* closed_;
  int half_;
};

epoll_event event(uint32_t events, uint64_t data) {
  epoll_event e{};
  e.events = events;
  e.data.u64 = data;
  return e;
}

/// A thread in epoll_wait, as the set sees it.
struct Sleeper {
  explicit Sleeper(EpollSet& set) : entry(&Sleeper::notify, this) {
    entry.interest = EPOLLIN;
    entry.exclusive = true;
    set.waiters().add(entry);
  }
  static bool notify(WaitEntry& entry, uint32_t) {
    auto& self = *static_cast<Sleeper*>(entry.context());
    ++self.woken;
    return self.takes;
  }
  WaitEntry entry;
  int woken = 0;
  bool takes = true;
};

class EpollSetTest : public ::testing::Test {
 protected:
  ~EpollSetTest() override {
    for (FakeFile* file : files_) file->release();
    set->release();
    other->release();
  }
  FakeFile& file(bool* closed = nullptr, int half = -1) {
    files_.push_back(arena.create<FakeFile>(arena, closed, half));
    return *files_.back();
  }
  void close(FakeFile& file) {
    std::erase(files_, &file);
    file.release();
  }
  /// "1:i 2:io": data and events, in order.
  std::string wait(size_t room = 16) { return wait(*set, room); }
  std::string wait(EpollSet& from, size_t room = 16) {
    std::array<epoll_event, 16> events;
    return text(std::span(events).first(from.collect(from.begin_wait(), std::span(events).first(room))));
  }
  static std::string text(std::span<const epoll_event> events) {
    std::string result;
    for (const epoll_event& e : events) {
      result += (result.empty() ? "" : " ") + std::to_string(uint64_t{e.data.u64}) + ":";
      if ((e.events & EPOLLIN) != 0) result += 'i';
      if ((e.events & EPOLLOUT) != 0) result += 'o';
      if ((e.events & EPOLLHUP) != 0) result += 'h';
      if ((e.events & EPOLLERR) != 0) result += 'e';
    }
    return result;
  }

  test::HeapArena arena;
  EpollSet* set = EpollSet::create(arena, -1);
  EpollSet* other = EpollSet::create(arena, -1);

 private:
  std::vector<FakeFile*> files_;
};

TEST_F(EpollSetTest, LevelTriggeredIsReportedAsLongAsItIsTrue) {
  FakeFile& f = file();
  ASSERT_TRUE(set->add(f, 5, event(EPOLLIN, 1)).ok());
  EXPECT_EQ(wait(), "");
  f.become(EPOLLIN);
  EXPECT_EQ(wait(), "1:i");
  EXPECT_EQ(wait(), "1:i");
  f.become(0);
  EXPECT_EQ(wait(), "");
  EXPECT_FALSE(set->may_be_ready());
}

TEST_F(EpollSetTest, WhatIsTrueWhenItIsAddedIsReported) {
  FakeFile& f = file();
  f.become(EPOLLIN | EPOLLOUT);
  ASSERT_TRUE(set->add(f, 5, event(EPOLLOUT | EPOLLET, 1)).ok());
  EXPECT_EQ(wait(), "1:o") << "only what was asked for";
}

TEST_F(EpollSetTest, EdgeTriggeredIsReportedOncePerEvent) {
  FakeFile& f = file();
  ASSERT_TRUE(set->add(f, 5, event(EPOLLIN | EPOLLET, 1)).ok());
  f.become(EPOLLIN);
  EXPECT_EQ(wait(), "1:i");
  EXPECT_EQ(wait(), "");
  f.again(EPOLLIN);
  EXPECT_EQ(wait(), "1:i");
  f.again(EPOLLOUT);
  EXPECT_EQ(wait(), "") << "not of interest";
}

TEST_F(EpollSetTest, OneShotIsSilentUntilItIsArmedAgain) {
  FakeFile& f = file();
  ASSERT_TRUE(set->add(f, 5, event(EPOLLIN | EPOLLONESHOT, 1)).ok());
  f.become(EPOLLIN);
  EXPECT_EQ(wait(), "1:i");
  f.again(EPOLLIN);
  f.become(EPOLLIN | EPOLLHUP);
  EXPECT_EQ(wait(), "") << "not even an error";
  ASSERT_TRUE(set->modify(f, 5, event(EPOLLIN | EPOLLONESHOT, 2)).ok());
  EXPECT_EQ(wait(), "2:ih");
}

TEST_F(EpollSetTest, ModifyingAnEdgeTriggeredOneReportsWhatIsTrueOnceMore) {
  FakeFile& f = file();
  ASSERT_TRUE(set->add(f, 5, event(EPOLLIN | EPOLLET, 1)).ok());
  f.become(EPOLLIN);
  EXPECT_EQ(wait(), "1:i");
  ASSERT_TRUE(set->modify(f, 5, event(EPOLLIN | EPOLLET, 1)).ok());
  EXPECT_EQ(wait(), "1:i");
}

TEST_F(EpollSetTest, ErrorsAndHangUpsAreReportedUnasked) {
  FakeFile& f = file();
  ASSERT_TRUE(set->add(f, 5, event(0, 1)).ok());
  f.become(EPOLLIN | EPOLLERR | EPOLLHUP);
  EXPECT_EQ(wait(), "1:he");
}

TEST_F(EpollSetTest, AMemberIsANumberTogetherWithWhatItMeant) {
  FakeFile &f = file(), &g = file();
  ASSERT_TRUE(set->add(f, 5, event(EPOLLIN, 1)).ok());
  EXPECT_EQ(set->add(f, 5, event(EPOLLIN, 2)).code(), EEXIST);
  EXPECT_TRUE(set->add(f, 6, event(EPOLLIN, 3)).ok()) << "a duplicate";
  EXPECT_TRUE(set->add(g, 5, event(EPOLLIN, 4)).ok()) << "the number was closed and means another file";
  EXPECT_TRUE(other->add(f, 5, event(EPOLLIN, 5)).ok());
  f.become(EPOLLIN);
  EXPECT_EQ(wait(), "3:i 1:i") << "who came last to a file is told first, as in Linux";
  EXPECT_EQ(wait(*other), "5:i");
  EXPECT_TRUE(set->remove(f, 6).ok());
  EXPECT_EQ(wait(), "1:i");
}

TEST_F(EpollSetTest, UnknownMembers) {
  FakeFile& f = file();
  EXPECT_EQ(set->modify(f, 5, event(EPOLLIN, 1)).code(), ENOENT);
  EXPECT_EQ(set->remove(f, 5).code(), ENOENT);
  ASSERT_TRUE(set->add(f, 5, event(EPOLLIN, 1)).ok());
  EXPECT_EQ(set->remove(f, 6).code(), ENOENT);
  EXPECT_TRUE(set->remove(f, 5).ok());
  EXPECT_EQ(set->remove(f, 5).code(), ENOENT);
}

TEST_F(EpollSetTest, ClosingTheLastReferenceEndsTheRegistration) {
  bool closed = false;
  FakeFile& f = file(&closed);
  ASSERT_TRUE(set->add(f, 5, event(EPOLLIN, 1)).ok());
  f.become(EPOLLIN);
  f.reference();  // a duplicate
  f.release();
  EXPECT_EQ(wait(), "1:i") << "as long as a duplicate is open";
  close(f);
  EXPECT_TRUE(closed);
  EXPECT_EQ(wait(), "");
  EXPECT_TRUE(set->empty());
}

TEST_F(EpollSetTest, ASmallArrayGetsThemInTurns) {
  std::vector<FakeFile*> files;
  for (uint64_t i = 1; i <= 4; ++i) {
    files.push_back(&file());
    ASSERT_TRUE(set->add(*files.back(), static_cast<int>(i), event(EPOLLIN, i)).ok());
    files.back()->become(EPOLLIN);
  }
  EXPECT_EQ(wait(3), "1:i 2:i 3:i");
  EXPECT_EQ(wait(3), "4:i 1:i 2:i");
  EXPECT_EQ(wait(3), "3:i 4:i 1:i");
}

TEST_F(EpollSetTest, NoneIsReportedTwiceInOneWait) {
  FakeFile &f = file(), &g = file();
  ASSERT_TRUE(set->add(f, 1, event(EPOLLIN, 1)).ok());
  ASSERT_TRUE(set->add(g, 2, event(EPOLLIN, 2)).ok());
  f.become(EPOLLIN);
  g.become(EPOLLIN);
  std::array<epoll_event, 4> events;
  uint32_t id = set->begin_wait();
  EXPECT_EQ(set->collect(id, std::span(events).first(1)), 1U);
  EXPECT_EQ(set->collect(id, std::span(events)), 1U);
  EXPECT_EQ(set->collect(id, std::span(events)), 0U);
  EXPECT_EQ(set->collect(set->begin_wait(), std::span(events)), 2U);
}

TEST_F(EpollSetTest, TheNumberOfAWaitComesRound) {
  FakeFile& f = file();
  ASSERT_TRUE(set->add(f, 1, event(EPOLLIN, 1)).ok());
  f.become(EPOLLIN);
  std::array<epoll_event, 4> events;
  uint32_t before = 0;
  bool round = false;
  for (int i = 0; i < 3000; ++i) {
    const uint32_t id = set->begin_wait();
    round |= id < before;
    before = id;
    ASSERT_EQ(set->collect(id, std::span(events)), 1U) << id;
    ASSERT_EQ(set->collect(id, std::span(events)), 0U) << id;
    // One that no wait has reported yet: no wait has the number that stands for this.
    ASSERT_TRUE(set->remove(f, 1).ok() && set->add(f, 1, event(EPOLLIN, 1)).ok());
  }
  EXPECT_TRUE(round);
}

TEST_F(EpollSetTest, ExclusiveAndWhatItExcludes) {
  FakeFile& f = file();
  EXPECT_EQ(set->add(f, 5, event(EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 1)).code(), EINVAL);
  EXPECT_EQ(set->add(f, 5, event(EPOLLPRI | EPOLLEXCLUSIVE, 1)).code(), EINVAL);
  EXPECT_EQ(set->add(*other, 6, event(EPOLLIN | EPOLLEXCLUSIVE, 1)).code(), EINVAL) << "a set";
  ASSERT_TRUE(set->add(f, 5, event(EPOLLIN | EPOLLEXCLUSIVE | EPOLLET, 1)).ok());
  EXPECT_EQ(set->modify(f, 5, event(EPOLLIN, 1)).code(), EINVAL);
  EXPECT_EQ(set->modify(f, 5, event(EPOLLIN | EPOLLEXCLUSIVE, 1)).code(), EINVAL);
}

TEST_F(EpollSetTest, AnExclusiveEventWakesOneSetThatWaits) {
  FakeFile& f = file();
  ASSERT_TRUE(set->add(f, 5, event(EPOLLIN | EPOLLEXCLUSIVE, 1)).ok());
  ASSERT_TRUE(other->add(f, 5, event(EPOLLIN | EPOLLEXCLUSIVE, 1)).ok());
  Sleeper second(*other);
  f.become(EPOLLIN);
  EXPECT_EQ(second.woken, 1) << "nobody waits on the first: the event goes on";
  f.become(0);
  Sleeper first(*set);
  f.become(EPOLLIN);
  EXPECT_EQ(first.woken + second.woken, 2) << "one of the two, not both";
}

TEST_F(EpollSetTest, OneEventWakesOneThreadAndWhatIsLeftTheNext) {
  FakeFile& f = file();
  ASSERT_TRUE(set->add(f, 5, event(EPOLLIN, 1)).ok());
  Sleeper first(*set), second(*set);
  f.become(EPOLLIN);
  EXPECT_EQ(first.woken, 1);
  EXPECT_EQ(second.woken, 0);
  first.takes = false;  // is on its way out of the wait
  EXPECT_EQ(wait(), "1:i");
  set->pass_on();
  EXPECT_EQ(second.woken, 1) << "level-triggered: it is still there";
}

TEST_F(EpollSetTest, SetsNest) {
  FakeFile& f = file();
  ASSERT_TRUE(set->add(f, 5, event(EPOLLIN, 1)).ok());
  ASSERT_TRUE(other->add(*set, 6, event(EPOLLIN, 2)).ok());
  EXPECT_EQ(wait(*other), "");
  f.become(EPOLLIN);
  EXPECT_EQ(set->readiness() & EPOLLIN, static_cast<uint32_t>(EPOLLIN));
  // Without a kernel's half here (number -1) the outer one reports by itself.
  EXPECT_EQ(wait(*other), "2:i");
  EXPECT_EQ(wait(), "1:i") << "the inner one still has it";
  f.become(0);
  EXPECT_EQ(set->readiness(), 0U);
  EXPECT_EQ(wait(*other), "");
}

TEST_F(EpollSetTest, WhatTheKernelHasReportedForAHalfIsNotRepeated) {
  FakeFile &listener = file(nullptr, 77), &plain = file();
  ASSERT_TRUE(set->add(listener, 5, event(EPOLLIN, 1)).ok());
  ASSERT_TRUE(set->add(plain, 6, event(EPOLLIN, 1)).ok()) << "the same data, which is the program's choice";
  listener.become(EPOLLIN);
  plain.become(EPOLLIN | EPOLLOUT);
  EXPECT_TRUE(set->has_halves());
  std::array<epoll_event, 4> events;
  uint32_t id = set->begin_wait();
  EXPECT_EQ(set->collect_whole(id, std::span(events)), 1U) << "the listener waits for the kernel's word";
  std::array<epoll_event, 1> reported{event(EPOLLIN, 1)};
  EXPECT_EQ(set->collect_after(id, std::span(events), reported), 0U);
  id = set->begin_wait();
  EXPECT_EQ(set->collect_after(id, std::span(events), {}), 2U) << "it was only put off";
}

TEST_F(EpollSetTest, OutOfMemoryChangesNothing) {
  FakeFile& f = file();
  arena.fail_after(0);
  EXPECT_EQ(set->add(f, 5, event(EPOLLIN, 1)).code(), ENOMEM);
  arena.never_fail();
  EXPECT_TRUE(set->empty());
  EXPECT_TRUE(set->add(f, 5, event(EPOLLIN, 1)).ok());
}

TEST_F(EpollSetTest, ASetThatIsClosedLeavesItsMembers) {
  FakeFile& f = file();
  EpollSet* third = EpollSet::create(arena, -1);
  ASSERT_TRUE(third->add(f, 5, event(EPOLLIN, 1)).ok());
  ASSERT_TRUE(other->add(*third, 6, event(EPOLLIN, 2)).ok());
  third->release();
  EXPECT_TRUE(f.registrations.empty());
  EXPECT_TRUE(other->empty());
  f.become(EPOLLIN);
  EXPECT_EQ(wait(*other), "");
}

}  // namespace
}  // namespace ustack::shim
