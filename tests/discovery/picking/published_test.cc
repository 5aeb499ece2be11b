// Published: what a reader holds stays whole while it is replaced, under many threads.
#include "conclave/discovery/picking/published.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

namespace conclave::picking {
namespace {

struct Pair {
  explicit Pair(int n) : first(n), second(-n) { ++alive; }
  ~Pair() {
    first = second = 1;  // a reader that is too late sees this
    --alive;
  }
  int first;
  int second;
  static inline std::atomic<int> alive = 0;
};

TEST(PublishedTest, ReadersSeeWholeObjectsOnlyAndNothingIsKept) {
  {
    Published<Pair> published(std::make_unique<const Pair>(0));
    std::atomic<bool> stop = false;
    std::atomic<int> reads = 0;
    std::vector<std::thread> readers;
    for (int i = 0; i < 4; ++i) {
      readers.emplace_back([&] {
        int last = 0;
        while (!stop) {
          const auto pair = published.Read();
          ASSERT_EQ(pair->first, -pair->second);
          ASSERT_GE(pair->first, last) << "never back to an older one";
          last = pair->first;
          ++reads;
        }
      });
    }
    for (int n = 1; n <= 3'000 || reads < 10'000; ++n) {
      published.Replace(std::make_unique<const Pair>(n));
      ASSERT_EQ(Pair::alive, 1) << "the old one is gone when Replace returns";
    }
    stop = true;
    for (std::thread& reader : readers) reader.join();
  }
  EXPECT_EQ(Pair::alive, 0);
}

TEST(PublishedTest, AThreadMayReadWhileItReads) {
  Published<Pair> published(std::make_unique<const Pair>(1));
  const auto outer = published.Read();
  const auto inner = published.Read();
  EXPECT_EQ(outer->first, inner->first);
}

}  // namespace
}  // namespace conclave::picking
