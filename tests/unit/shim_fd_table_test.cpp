// Entries, references and copies of a process's descriptor table.
#include "shim/fd_table.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "tests/support/fd_table_fixture.h"

namespace ustack::shim {
namespace {

using test::FakeFile;

class ShimFdTable : public test::FdTableFixture {};

TEST_F(ShimFdTable, FindsWhatWasSet) {
  FakeFile file;
  EXPECT_EQ(FdTable::look(5), nullptr);
  EXPECT_EQ(FdTable::look(-1), nullptr);
  EXPECT_EQ(FdTable::look(FdTable::kLimit), nullptr);
  EXPECT_EQ(FdTable::look(INT32_MAX), nullptr);
  EXPECT_EQ(FdTable::look(INT32_MIN), nullptr);
  ASSERT_TRUE(table_->set(5, &file).ok());
  EXPECT_EQ(FdTable::look(5), &file);
  EXPECT_EQ(FdTable::look(4), nullptr);
  EXPECT_EQ(FdTable::look(5 + 1024), nullptr);
  EXPECT_TRUE(table_->clear(5));
  EXPECT_TRUE(file.closed);
  EXPECT_EQ(FdTable::look(5), nullptr);
  EXPECT_FALSE(table_->clear(5));
  EXPECT_FALSE(table_->clear(-1));
  EXPECT_FALSE(table_->clear(FdTable::kLimit));
}

TEST_F(ShimFdTable, NumbersOutOfRangeAreRefused) {
  FakeFile file;
  EXPECT_EQ(table_->set(-1, &file).code(), EMFILE);
  EXPECT_EQ(table_->set(FdTable::kLimit, &file).code(), EMFILE);
  EXPECT_EQ(file.references(), 1u) << "the reference stays the caller's";
  ASSERT_TRUE(table_->set(FdTable::kLimit - 1, &file).ok());
  EXPECT_EQ(FdTable::look(FdTable::kLimit - 1), &file);
  EXPECT_EQ(table_->next(0), FdTable::kLimit - 1);
  EXPECT_TRUE(table_->clear(FdTable::kLimit - 1));
}

TEST_F(ShimFdTable, WithoutMemoryTheReferenceStaysTheCallers) {
  FakeFile file;
  arena_.fail_after(0);
  EXPECT_EQ(table_->set(3, &file).code(), ENOMEM);
  EXPECT_EQ(table_->copy(), nullptr);
  arena_.never_fail();
  EXPECT_EQ(file.references(), 1u);
  EXPECT_EQ(FdTable::look(3), nullptr);
}

TEST_F(ShimFdTable, WhatIsReplacedIsReleased) {
  FakeFile first, second;
  ASSERT_TRUE(table_->set(7, &first).ok());
  ASSERT_TRUE(table_->set(7, &second).ok());
  EXPECT_TRUE(first.closed);
  EXPECT_FALSE(second.closed);
  table_->clear(7);
  EXPECT_TRUE(second.closed);
}

TEST_F(ShimFdTable, TheLastNumberCloses) {
  FakeFile file;
  file.reference();
  ASSERT_TRUE(table_->set(3, &file).ok());
  ASSERT_TRUE(table_->set(4000, &file).ok());
  EXPECT_EQ(table_->next(0), 3);
  EXPECT_EQ(table_->next(4), 4000);
  EXPECT_EQ(table_->next(4001), -1);
  table_->clear(3);
  EXPECT_FALSE(file.closed);
  table_->clear(4000);
  EXPECT_TRUE(file.closed);
}

TEST_F(ShimFdTable, ACopyHoldsItsOwnReferences) {
  FakeFile file, other;
  ASSERT_TRUE(table_->set(3, &file).ok());
  ASSERT_TRUE(table_->set(2000, &other).ok());
  FdTable* copy = table_->copy();
  ASSERT_NE(copy, nullptr);
  EXPECT_EQ(file.references(), 2u);
  table_->clear(3);
  EXPECT_FALSE(file.closed) << "the child still has it";
  EXPECT_EQ(copy->next(0), 3);
  FdTable::destroy(copy);
  EXPECT_TRUE(file.closed);
  EXPECT_FALSE(other.closed);
  table_->clear(2000);
  EXPECT_TRUE(other.closed);
}

TEST_F(ShimFdTable, EachMayClear) {
  FakeFile files[3];
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(table_->set(i * 1500, &files[i]).ok());
  std::vector<int> numbers;
  table_->each([&](int fd, OpenFile* file) {
    EXPECT_EQ(file, &files[fd / 1500]);
    numbers.push_back(fd);
    table_->clear(fd);
  });
  EXPECT_EQ(numbers, (std::vector<int>{0, 1500, 3000}));
  EXPECT_EQ(table_->next(0), -1);
}

TEST_F(ShimFdTable, LooksAreFreeOfLocks) {
  FakeFile file;
  std::atomic<bool> stop{false};
  std::thread looking([&] {
    while (!stop.load()) {
      OpenFile* found = FdTable::look(900);
      EXPECT_TRUE(found == nullptr || found == &file);
    }
  });
  for (int i = 0; i < 2000; ++i) {
    file.reference();
    ASSERT_TRUE(table_->set(900, &file).ok());
    table_->clear(900);
  }
  stop.store(true);
  looking.join();
}

TEST_F(ShimFdTable, AnotherTableIsAnsweredAsWhole) {
  FakeFile near, far, other;
  FdTable* copy = FdTable::create(arena_);
  ASSERT_NE(copy, nullptr);
  ASSERT_TRUE(table_->set(3, &near).ok());
  ASSERT_TRUE(table_->set(70000, &far).ok());
  ASSERT_TRUE(copy->set(4, &other).ok());
  EXPECT_EQ(FdTable::look(4), nullptr) << "the table that isn't current says nothing";
  FdTable::set_current(copy);
  EXPECT_EQ(FdTable::look(3), nullptr);
  EXPECT_EQ(FdTable::look(70000), nullptr);
  EXPECT_EQ(FdTable::look(4), &other);
  FdTable::set_current(table_);
  EXPECT_EQ(FdTable::look(3), &near);
  EXPECT_EQ(FdTable::look(70000), &far);
  FdTable::destroy(copy);
  table_->clear(3);
  table_->clear(70000);
}

TEST_F(ShimFdTable, AChildAnswersAsItsParent) {
  FakeFile near, far;
  near.reference();
  far.reference();
  ASSERT_TRUE(table_->set(3, &near).ok());
  ASSERT_TRUE(table_->set(70000, &far).ok());
  FdTable* copy = table_->copy();
  ASSERT_NE(copy, nullptr);
  FdTable::inherit(copy);
  EXPECT_EQ(FdTable::look(3), &near);
  EXPECT_EQ(FdTable::look(70000), &far);
  EXPECT_TRUE(copy->clear(3));
  EXPECT_EQ(FdTable::look(3), nullptr);
  FdTable::inherit(nullptr);
  EXPECT_EQ(FdTable::look(70000), nullptr);
  FdTable::destroy(copy);
  FdTable::set_current(table_);
  table_->clear(3);
  table_->clear(70000);
}

TEST(ShimFdTableNone, WithoutATableEverythingIsTheKernels) {
  FdTable::set_current(nullptr);
  for (int fd : {-1, 0, 3, 1 << 19, INT32_MAX}) EXPECT_EQ(FdTable::look(fd), nullptr);
}

TEST(ShimProcessLock, IsExclusive) {
  ProcessLock lock;
  int value = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 20000; ++n) {
        std::lock_guard held(lock);
        value = value + 1;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(value, 80000);
}

}  // namespace
}  // namespace ustack::shim
