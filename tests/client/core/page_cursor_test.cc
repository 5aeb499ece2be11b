#include "conclave/client/core/page_cursor.h"

#include "conclave/client/core/error.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

RangeResult Answer(int64_t revision, std::vector<std::string> keys, bool more, int64_t count = 0) {
  RangeResult result{.revision = revision, .count = count, .more = more};
  for (std::string& key : keys) result.kvs.push_back({.key = std::move(key)});
  return result;
}

absl::Status ServerError(absl::StatusCode code, const std::string& text) {
  absl::Status status(code, text);
  SetErrorDetail(status, {.server_error = text, .endpoint = "m0"});
  return status;
}

const char* const kCompacted = "etcdserver: mvcc: required revision has been compacted";
const char* const kFuture = "etcdserver: mvcc: required revision is a future revision";

RangeRequest Asked(const PageCursor& cursor) {
  absl::StatusOr<RangeRequest> request = cursor.Request();
  EXPECT_TRUE(request.ok()) << request.status();
  return request.ok() ? *request : RangeRequest();
}

TEST(PageCursorTest, AllPagesAreOfTheFirstOnesRevisionAndGoOnBehindTheLastKey) {
  PageCursor cursor(Prefix("a/"), {.page_size = 2});
  RangeRequest request = Asked(cursor);
  EXPECT_EQ(request.range, Prefix("a/"));
  EXPECT_EQ(request.options.revision, 0);
  EXPECT_EQ(request.options.limit, 2);
  auto page = cursor.Accept(Answer(7, {"a/1", "a/2"}, true, 3));
  ASSERT_TRUE(page.ok() && page->has_value());
  EXPECT_EQ((*page)->revision, 7);
  EXPECT_EQ((*page)->count, 3);
  EXPECT_FALSE(cursor.done());
  request = Asked(cursor);
  EXPECT_EQ(request.range, KeyRange(std::string("a/2\0", 4), "a0"));
  EXPECT_EQ(request.options.revision, 7);
  page = cursor.Accept(Answer(90, {"a/3"}, false, 1));
  ASSERT_TRUE(page.ok() && page->has_value());
  EXPECT_EQ((*page)->revision, 7);
  EXPECT_EQ((*page)->count, 3);
  EXPECT_TRUE(cursor.done());
}

TEST(PageCursorTest, TheLimitEndsItAndCutsTheLastRequest) {
  PageCursor cursor(AllKeys(), {.page_size = 2, .limit = 3, .revision = 5});
  EXPECT_EQ(Asked(cursor).options.limit, 2);
  EXPECT_EQ(Asked(cursor).options.revision, 5);
  ASSERT_TRUE(cursor.Accept(Answer(9, {"a", "b"}, true)).ok());
  EXPECT_EQ(Asked(cursor).options.limit, 1);
  EXPECT_EQ(Asked(cursor).options.revision, 5);
  ASSERT_TRUE(cursor.Accept(Answer(9, {"c"}, true)).ok());
  EXPECT_TRUE(cursor.done());
}

TEST(PageCursorTest, AnEmptyRangeHasARevisionAndNoPage) {
  PageCursor cursor("k", {});
  auto page = cursor.Accept(Answer(7, {}, false));
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_FALSE(page->has_value());
  EXPECT_TRUE(cursor.done());
  EXPECT_EQ(cursor.revision(), 7);
}

TEST(PageCursorTest, ASingleKeyIsOnePage) {
  PageCursor cursor("k", {});
  EXPECT_EQ(Asked(cursor).range, KeyRange("k"));
  auto page = cursor.Accept(Answer(7, {"k"}, false));
  ASSERT_TRUE(page.ok() && page->has_value());
  EXPECT_TRUE(cursor.done());
}

TEST(PageCursorTest, ALaggingMemberIsAskedAgainLinearizably) {
  PageCursor cursor(AllKeys(), {.page_size = 1, .serializable = true});
  EXPECT_TRUE(Asked(cursor).options.serializable);
  ASSERT_TRUE(cursor.Accept(Answer(7, {"a"}, true)).ok());
  auto none = cursor.Accept(ServerError(absl::StatusCode::kOutOfRange, kFuture));
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_FALSE(none->has_value());
  EXPECT_FALSE(Asked(cursor).options.serializable);
  EXPECT_EQ(Asked(cursor).options.revision, 7);
  // If that does not help either, it is an error.
  auto error = cursor.Accept(ServerError(absl::StatusCode::kOutOfRange, kFuture));
  EXPECT_TRUE(absl::IsOutOfRange(error.status()));
  ASSERT_TRUE(cursor.Accept(Answer(7, {"b"}, true)).ok());
  EXPECT_TRUE(Asked(cursor).options.serializable) << "for that one page only";
}

TEST(PageCursorTest, ACompactionIsAClearError) {
  PageCursor cursor(AllKeys(), {.page_size = 1});
  ASSERT_TRUE(cursor.Accept(Answer(7, {"a"}, true)).ok());
  auto page = cursor.Accept(ServerError(absl::StatusCode::kOutOfRange, kCompacted));
  EXPECT_TRUE(absl::IsOutOfRange(page.status()));
  EXPECT_NE(page.status().message().find("revision 7 was compacted after 1 keys"),
            absl::string_view::npos)
      << page.status();
  EXPECT_TRUE(IsCompacted(page.status()));
  EXPECT_FALSE(cursor.done()) << "an error is not the end";
}

TEST(PageCursorTest, AServerThatDoesNotGoForwardIsAnError) {
  PageCursor cursor(AllKeys(), {.page_size = 1});
  ASSERT_TRUE(cursor.Accept(Answer(7, {"b"}, true)).ok());
  EXPECT_TRUE(absl::IsInternal(cursor.Accept(Answer(7, {"b"}, true)).status()));
  auto empty = cursor.Accept(Answer(7, {}, true));
  ASSERT_TRUE(empty.ok());
  EXPECT_TRUE(cursor.done());
}

TEST(PageCursorTest, BadOptionsAreSaidAtTheFirstPage) {
  EXPECT_TRUE(absl::IsInvalidArgument(PageCursor(AllKeys(), {.page_size = 0}).Request().status()));
  EXPECT_TRUE(absl::IsInvalidArgument(PageCursor(AllKeys(), {.limit = -1}).Request().status()));
}

}  // namespace
}  // namespace conclave
