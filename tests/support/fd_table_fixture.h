// A descriptor table that is the process's, and files that do nothing. Compiled without RTTI, as OpenFile is.
#pragma once

#include <gtest/gtest.h>

#include "shim/fd_table.h"
#include "tests/support/heap_arena.h"

namespace ustack::test {

class FakeFile final : public shim::OpenFile {
 public:
  FakeFile() : OpenFile(Kind::socket) {}
  uint32_t readiness() override { return 0; }
  WaitQueue& waiters() override { return waiters_; }
  bool closed = false;

 protected:
  void close() override { closed = true; }

 private:
  WaitQueue waiters_;
};

class FdTableFixture : public testing::Test {
 protected:
  void SetUp() override {
    table_ = shim::FdTable::create(arena_);
    ASSERT_NE(table_, nullptr);
    shim::FdTable::set_current(table_);
  }
  void TearDown() override {
    shim::FdTable::set_current(nullptr);
    shim::FdTable::destroy(table_);
    EXPECT_EQ(arena_.in_use(), 0u);
  }
  HeapArena arena_;
  shim::FdTable* table_ = nullptr;
};

}  // namespace ustack::test
